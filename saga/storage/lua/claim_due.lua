-- Claims what is due and driven by nobody, oldest due first, and answers the ids; the same token again gets what it still
-- holds of what it got. Of those that would have crashed twice or more in a row (suspects) only so many are taken.
local at = now()
local token_key = root .. ':token:' .. order.token
forget(at)

local taken = {}
local held = {}
for _, id in ipairs(redis.call('SMEMBERS', token_key)) do
    taken[id] = true
    local row = redis.call('HMGET', saga_key(id), 'token', 'due_at')
    if row[1] == order.token then
        held[#held + 1] = { id = id, due = tonumber(row[2]) or 0 }
    end
end

local function sort(sagas)
    table.sort(sagas, function(a, b)
        if a.due ~= b.due then
            return a.due < b.due
        end
        return comes_before(a.id, b.id)
    end)
end

local function ids_of(sagas)
    local ids = {}
    for place, saga in ipairs(sagas) do
        ids[place] = saga.id
    end
    return cmsgpack.pack(ids)
end

if #held > 0 then
    sort(held)
    return ids_of(held)
end

local excluded = {}
for _, id in ipairs(order.exclude) do
    excluded[id] = true
end

local found = {}

-- Goes through what stands in a sorted set up to now, a part at a time, until enough can be claimed.
local function gather(key, definition, look, enough)
    local from = 0
    local plain, suspect = 0, 0
    while true do
        local ids = redis.call('ZRANGEBYSCORE', key, '-inf', text(at), 'LIMIT', from, 500)
        for _, id in ipairs(ids) do
            from = from + 1
            if not excluded[id] and not taken[id] then
                local saga, has_left = look(id)
                if has_left then
                    from = from - 1
                end
                if saga then
                    saga.definition = definition
                    found[#found + 1] = saga
                    if saga.recoveries >= order.suspect then
                        suspect = suspect + 1
                    else
                        plain = plain + 1
                    end
                end
            end
        end
        if #ids < 500 or plain >= enough then
            return
        end
    end
end

for _, pair in ipairs(order.definitions) do
    local definition = definition_of(pair[1], pair[2])
    gather(due_key(definition), definition, function(id)
        local row = redis.call('HMGET', saga_key(id), 'version', 'fence', 'recoveries', 'due_at')
        if not row[1] then
            redis.call('ZREM', due_key(definition), id)
            return nil, true
        end
        return {
            id = id, version = tonumber(row[1]), fence = tonumber(row[2]), recoveries = tonumber(row[3]),
            due = tonumber(row[4]), expired = false,
        }
    end, order.limit)
    local leases = leases_key(definition)
    gather(leases, definition, function(id)
        local row = redis.call('HMGET', saga_key(id), 'version', 'fence', 'recoveries', 'due_at', 'lease_until')
        local due, ends = tonumber(row[4] or ''), tonumber(row[5] or '')
        if not ends then
            redis.call('ZREM', leases, id)
            return nil, true
        end
        if not due then
            return nil, false
        end
        if ends > at or due > at then
            redis.call('ZADD', leases, text(math.max(ends, due)), id)
            return nil, true
        end
        return {
            id = id, version = tonumber(row[1]), fence = tonumber(row[2]), recoveries = tonumber(row[3]) + 1, due = due,
            expired = true,
        }, false
    end, math.max(order.limit, 1000))
end

sort(found)
local chosen = {}
local suspects = 0
for _, saga in ipairs(found) do
    local is_suspect = saga.recoveries >= order.suspect
    if is_suspect then
        suspects = suspects + 1
    end
    if #chosen < order.limit and (not is_suspect or suspects <= order.suspects) then
        chosen[#chosen + 1] = saga
    end
end

for _, saga in ipairs(chosen) do
    local id = saga.id
    local fence = text(saga.fence + 1)
    local fact = order.fact .. ',"fence":' .. fence .. ',"recoveries":' .. text(saga.recoveries)
        .. ',"expired":' .. tostring(saga.expired) .. '}]'
    redis.call('RPUSH', journal_key(id), entry_of(text(saga.version + 1), at, order.write_id, fact))
    redis.call(
        'HSET', saga_key(id), 'version', text(saga.version + 1), 'fence', fence, 'recoveries', text(saga.recoveries),
        'owner', order.owner, 'token', order.token, 'lease_until', text(at + order.ttl), 'updated_at', text(at)
    )
    redis.call('ZREM', due_key(saga.definition), id)
    redis.call('ZADD', leases_key(saga.definition), text(at + order.ttl), id)
    redis.call('SADD', token_key, id)
end
if #chosen > 0 then
    redis.call('EXPIRE', token_key, 86400)
end
return ids_of(chosen)
