-- Gives up the claims whose token is the current one.
for _, claim in ipairs(order.claims) do
    local id = claim[1]
    local row = redis.call('HMGET', saga_key(id), 'token', 'due_at', 'name', 'saga_version')
    if row[1] == claim[2] then
        local definition = definition_of(row[3], row[4])
        redis.call('HSET', saga_key(id), 'owner', '', 'token', '', 'lease_until', '')
        redis.call('ZREM', leases_key(definition), id)
        if row[2] ~= '' then
            redis.call('ZADD', due_key(definition), row[2], id)
        end
    end
end
return cmsgpack.pack(true)
