-- How many sagas of each name and status are there, how many of them need a person, and since when is one unfinished (0:
-- none is)?
forget(now())
local counts = {}
for _, kind in ipairs(redis.call('SMEMBERS', root .. ':kinds')) do
    local name, status, need = parts_of(kind)
    local sagas = redis.call('ZCARD', index_key(kind))
    if sagas > 0 then
        local oldest = 0
        if need ~= '2' and status ~= 'completed' and status ~= 'rolled_back' and status ~= 'failed' then
            oldest = tonumber(string.sub(redis.call('ZRANGE', index_key(kind), 0, 0)[1], 1, 17))
        end
        counts[#counts + 1] = { name, status, sagas, need ~= '0' and sagas or 0, oldest }
    end
end
return cmsgpack.pack(counts)
