-- One page of a journal; nothing, if there is no such saga.
if redis.call('EXISTS', saga_key(order.id)) == 0 then
    return cmsgpack.pack(false)
end
return cmsgpack.pack(redis.call('LRANGE', journal_key(order.id), order.after, order.after + order.limit - 1))
