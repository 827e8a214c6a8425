-- What every script begins with. KEYS[1] is the hash tag with the prefix, which all keys share; ARGV[1] is the instant in
-- microseconds (empty: the server's time); ARGV[2] is what to do, as msgpack.
--
--   {prefix}:saga:ID        a hash: the saga's row. Instants in microseconds; an empty text means none.
--   {prefix}:journal:ID     a list: its appends as version, stamp, write id and facts, with NUL between them.
--   {prefix}:due:NAME       a sorted set by due time: sagas of a definition that nobody drives.
--   {prefix}:leases:NAME    a sorted set: sagas of a definition that somebody drives, by an instant before which their
--                           lease cannot have ended; an append extends the lease in the row only.
--   {prefix}:index:KIND     a sorted set without scores, by age and id: sagas of a name, a status and a need.
--   {prefix}:kinds          a set: the kinds that occur.
--   {prefix}:token:TOKEN    a set: what one claim took, for as long as it might be asked for again.
--   {prefix}:ended          a sorted set by the instant at which an ended saga goes: where the indices have it.
local root = KEYS[1]
local order = cmsgpack.unpack(ARGV[2])

local function now()
    if ARGV[1] ~= '' then
        return tonumber(ARGV[1])
    end
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- Lua itself would print fourteen digits; an instant has sixteen.
local function text(number)
    return string.format('%.0f', number)
end

local function saga_key(id) return root .. ':saga:' .. id end
local function journal_key(id) return root .. ':journal:' .. id end
local function due_key(definition) return root .. ':due:' .. definition end
local function leases_key(definition) return root .. ':leases:' .. definition end
local function index_key(kind) return root .. ':index:' .. kind end

local function definition_of(name, version)
    return name .. '\0' .. version
end

-- A saga needs nobody (0), should be looked at (1), or waits for a person (2).
local function kind_of(name, status, attention, at_rest)
    local need = 0
    if attention ~= '' or status == 'failed' then
        need = at_rest and 2 or 1
    end
    return name .. '\0' .. status .. '\0' .. need
end

local function parts_of(kind)
    return string.match(kind, '^(.-)%z(.-)%z(%d)$')
end

local function place_of(created, id)
    return string.format('%017.0f', created) .. id
end

local function entry_of(version, at, write_id, events)
    return version .. '\0' .. text(at) .. '\0' .. write_id .. '\0' .. events
end

-- The version and the stamp of an earlier append with this write id, if there was one.
local function first_answer(id, write_id)
    local entries = redis.call('LRANGE', journal_key(id), 0, -1)
    local wanted = '\0' .. write_id .. '\0'
    for place = #entries, 1, -1 do
        if string.find(entries[place], wanted, 1, true) then
            local version, at, written = string.match(entries[place], '^(%d+)%z(%d+)%z([^%z]*)%z')
            if written == write_id then
                return tonumber(version), tonumber(at)
            end
        end
    end
    return nil
end

-- Lua's own order of texts is that of the server's language.
local function comes_before(a, b)
    for place = 1, math.min(#a, #b) do
        local x, y = string.byte(a, place), string.byte(b, place)
        if x ~= y then
            return x < y
        end
    end
    return #a < #b
end

local function move(id, created, old_kind, new_kind)
    if old_kind ~= new_kind then
        local place = place_of(created, id)
        if old_kind then
            redis.call('ZREM', index_key(old_kind), place)
        end
        redis.call('ZADD', index_key(new_kind), 0, place)
        redis.call('SADD', root .. ':kinds', new_kind)
    end
end

-- Takes those ended sagas out of the indices whose rows are gone by now.
local function forget(at)
    local gone = redis.call('ZRANGEBYSCORE', root .. ':ended', '-inf', text(at), 'LIMIT', 0, 1000)
    for _, member in ipairs(gone) do
        local name, status, need, place = string.match(member, '^(.-)%z(.-)%z(%d)%z(.*)$')
        redis.call('ZREM', index_key(name .. '\0' .. status .. '\0' .. need), place)
        redis.call('ZREM', root .. ':ended', member)
    end
end
