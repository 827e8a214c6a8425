-- One page of rows, newest first, below a place.
forget(now())
local wanted = {}
for _, status in ipairs(order.statuses) do
    wanted[status] = true
end

local places = {}
for _, kind in ipairs(redis.call('SMEMBERS', root .. ':kinds')) do
    local name, status, need = parts_of(kind)
    local in_need = need ~= '0'
    if wanted[status] and (order.name == '' or order.name == name) and (order.in_need == '' or order.in_need == in_need) then
        local below = order.below == '' and '+' or '(' .. order.below
        for _, place in ipairs(redis.call('ZREVRANGEBYLEX', index_key(kind), below, '-', 'LIMIT', 0, order.limit)) do
            places[#places + 1] = place
        end
    end
end
table.sort(places, function(a, b) return comes_before(b, a) end)

local rows = {}
for _, place in ipairs(places) do
    if #rows == order.limit then
        break
    end
    local row = redis.call('HGETALL', saga_key(string.sub(place, 18)))
    if #row > 0 then
        rows[#rows + 1] = row
    end
end
return cmsgpack.pack(rows)
