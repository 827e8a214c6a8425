-- Extends the claims whose token is the current one, and answers at which versions their sagas are (0: not current).
local at = now()
local versions = {}
for place, claim in ipairs(order.claims) do
    local row = redis.call('HMGET', saga_key(claim[1]), 'token', 'version')
    if row[1] == claim[2] then
        redis.call('HSET', saga_key(claim[1]), 'lease_until', text(at + claim[3]))
        versions[place] = tonumber(row[2])
    else
        versions[place] = 0
    end
end
return cmsgpack.pack(versions)
