-- Deletes sagas at rest that last grew before an instant, oldest first, with their journals. No saga was created after it
-- last grew. Answers how many.
local before = now() - order.older_than
local wanted = {}
for _, status in ipairs(order.statuses) do
    wanted[status] = true
end

local found = {}
for _, kind in ipairs(redis.call('SMEMBERS', root .. ':kinds')) do
    local name, status = parts_of(kind)
    if wanted[status] then
        local from, some = 0, 0
        repeat
            local places = redis.call(
                'ZRANGEBYLEX', index_key(kind), '-', '(' .. place_of(before, ''), 'LIMIT', from, 500
            )
            for _, place in ipairs(places) do
                local id = string.sub(place, 18)
                local row = redis.call('HMGET', saga_key(id), 'updated_at', 'saga_version')
                if row[1] and tonumber(row[1]) < before then
                    some = some + 1
                    found[#found + 1] = { id = id, place = place, kind = kind, definition = definition_of(name, row[2]) }
                end
            end
            from = from + #places
        until #places < 500 or some >= order.limit
    end
end
table.sort(found, function(a, b) return comes_before(a.place, b.place) end)

local deleted = 0
for _, saga in ipairs(found) do
    if deleted == order.limit then
        break
    end
    redis.call('DEL', saga_key(saga.id), journal_key(saga.id))
    redis.call('ZREM', index_key(saga.kind), saga.place)
    redis.call('ZREM', leases_key(saga.definition), saga.id)
    redis.call('ZREM', due_key(saga.definition), saga.id)
    redis.call('ZREM', root .. ':ended', saga.kind .. '\0' .. saga.place)
    deleted = deleted + 1
end
return cmsgpack.pack(deleted)
