-- Creations, appends and requests. Each is looked at by itself: nobody pays for a neighbour. Answers the instant, and for
-- each write its version or, where it was not stored, what stands there: version, token, and version and stamp of the
-- first answer (0: none); or nothing, where there is no such saga.
local at = now()
local answers = {}

local function keep(id, created, kind, is_plain)
    if order.ended_ttl then
        local member = kind .. '\0' .. place_of(created, id)
        if is_plain then
            local milliseconds = math.ceil(order.ended_ttl / 1000)
            redis.call('PEXPIRE', saga_key(id), milliseconds)
            redis.call('PEXPIRE', journal_key(id), milliseconds)
            redis.call('ZADD', root .. ':ended', text(at + order.ended_ttl), member)
        else
            redis.call('PERSIST', saga_key(id))
            redis.call('PERSIST', journal_key(id))
        end
    end
end

local function has_ended(status, attention)
    return attention == '' and (status == 'completed' or status == 'rolled_back')
end

local function refused(id, write_id, version, token)
    local first_version, first_at = first_answer(id, write_id)
    return { tonumber(version), token, first_version or 0, first_at or 0 }
end

local function create(new)
    local id, write_id, events, name, saga_version, status, attention, at_rest, fence, recoveries, owner, token, ttl, due_in =
        unpack(new, 2, 15)
    local row = redis.call('HMGET', saga_key(id), 'version', 'token')
    redis.call('LLEN', journal_key(id)) -- Raises before anything is written, if something else has this name.
    if row[1] then
        return refused(id, write_id, row[1], row[2])
    end
    local due = due_in == '' and '' or text(at + due_in)
    redis.call(
        'HSET', saga_key(id), 'id', id, 'name', name, 'saga_version', saga_version, 'status', status,
        'attention', attention, 'at_rest', at_rest and 1 or 0, 'version', 1, 'fence', fence, 'recoveries', recoveries,
        'owner', owner, 'token', token, 'lease_until', token == '' and '' or text(at + ttl), 'due_at', due,
        'created_at', text(at), 'updated_at', text(at)
    )
    redis.call('RPUSH', journal_key(id), entry_of(1, at, write_id, events))
    local definition = definition_of(name, saga_version)
    if token ~= '' then
        redis.call('ZADD', leases_key(definition), text(at + ttl), id)
    elseif due ~= '' then
        redis.call('ZADD', due_key(definition), due, id)
    end
    local kind = kind_of(name, status, attention, at_rest)
    move(id, at, nil, kind)
    if has_ended(status, attention) then
        keep(id, at, kind, true)
    end
    return 1
end

local function append(new)
    local id, write_id, events, expected, given, ttl, status, attention, at_rest, recoveries, due_in, release =
        unpack(new, 2, 13)
    local row = redis.call(
        'HMGET', saga_key(id), 'version', 'token', 'status', 'attention', 'at_rest', 'name', 'saga_version', 'created_at'
    )
    if not row[1] then
        return false
    end
    local token = row[2]
    if tonumber(row[1]) ~= expected or (given ~= '' and given ~= token) or first_answer(id, write_id) then
        return refused(id, write_id, row[1], token)
    end
    redis.call('RPUSH', journal_key(id), entry_of(expected + 1, at, write_id, events))
    local due = due_in == '' and '' or text(at + due_in)
    local values = {
        'version', expected + 1, 'status', status, 'attention', attention, 'at_rest', at_rest and 1 or 0,
        'recoveries', recoveries, 'due_at', due, 'updated_at', text(at),
    }
    local definition = definition_of(row[6], row[7])
    if release then
        for _, part in ipairs({ 'owner', '', 'token', '', 'lease_until', '' }) do
            values[#values + 1] = part
        end
        redis.call('ZREM', leases_key(definition), id)
        token = ''
    elseif given ~= '' then
        values[#values + 1] = 'lease_until'
        values[#values + 1] = text(at + ttl)
    end
    redis.call('HSET', saga_key(id), unpack(values))
    if token == '' then
        if due ~= '' then
            redis.call('ZADD', due_key(definition), due, id)
        else
            redis.call('ZREM', due_key(definition), id)
        end
    end
    local old_kind = kind_of(row[6], row[3], row[4], row[5] == '1')
    local kind = kind_of(row[6], status, attention, at_rest)
    local created = tonumber(row[8])
    move(id, created, old_kind, kind)
    if at_rest or row[5] == '1' then
        if old_kind ~= kind and order.ended_ttl then
            redis.call('ZREM', root .. ':ended', old_kind .. '\0' .. place_of(created, id))
        end
        keep(id, created, kind, has_ended(status, attention))
    end
    return expected + 1
end

local function request(new)
    local id, write_id, events = unpack(new, 2, 4)
    local row = redis.call('HMGET', saga_key(id), 'version', 'token', 'at_rest', 'name', 'saga_version', 'lease_until')
    if not row[1] then
        return false
    end
    if first_answer(id, write_id) then
        return refused(id, write_id, row[1], row[2])
    end
    local version = tonumber(row[1]) + 1
    redis.call('RPUSH', journal_key(id), entry_of(version, at, write_id, events))
    redis.call('HSET', saga_key(id), 'version', version, 'updated_at', text(at))
    if row[3] == '0' then
        redis.call('HSET', saga_key(id), 'due_at', text(at))
        local definition = definition_of(row[4], row[5])
        if row[2] == '' then
            redis.call('ZADD', due_key(definition), text(at), id)
        else
            redis.call('ZADD', leases_key(definition), row[6], id)
        end
    end
    return version
end

local writers = { create = create, append = append, request = request }
for place, new in ipairs(order.writes) do
    answers[place] = writers[new[1]](new)
end
return cmsgpack.pack({ at, answers })
