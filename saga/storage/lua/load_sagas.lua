-- These sagas with their journals; unknown ids are left out.
local sagas = {}
for _, id in ipairs(order.ids) do
    local row = redis.call('HGETALL', saga_key(id))
    if #row > 0 then
        sagas[#sagas + 1] = { row, redis.call('LRANGE', journal_key(id), 0, -1) }
    end
end
return cmsgpack.pack(sagas)
