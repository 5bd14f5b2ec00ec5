-- Safelight's whole schema. Postgres is the truth, S3 holds the bytes, Redis only carries job ids.
-- Safe to run again and by many processes at once: the caller takes the advisory lock (storage.database.migrate).
-- CHECK constraints make bad states impossible; the database's clock decides what is due.

create table if not exists schema_version (
  version     int primary key,
  applied_at  timestamptz not null default now()
);

-- Keys that open the REST door, and the S3 door where their secret is kept sealed: signatures need the secret itself.
create table if not exists api_key (
  access_key   text primary key check (access_key ~ '^[A-Z0-9]{16,40}$'),
  secret_hash  bytea not null check (octet_length(secret_hash) = 32),   -- sha256
  name         text not null check (length(name) between 1 and 200),
  scopes       text[] not null check (cardinality(scopes) > 0 and scopes <@ array['read', 'write', 'admin']),
  created_at   timestamptz not null default now(),
  expires_at   timestamptz,
  revoked_at   timestamptz
);
-- Version 2. Looked for first, because altering a table waits for everybody who reads it, even if nothing is to do.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'api_key'::regclass and attname = 'sealed_secret') then
    alter table api_key
      add column if not exists sealed_secret bytea,                     -- null: opens REST only (storage.sealing)
      add column if not exists places text[] not null default '{}'      -- bucket or bucket/prefix; empty: any
        check (array_position(places, null) is null),
      add column if not exists storage_access_key text,                 -- null: Safelight's own
      add column if not exists sealed_storage_secret bytea,
      add constraint api_key_storage check ((storage_access_key is null) = (sealed_storage_secret is null));
  end if;
end $$;

-- One stored generation of bytes. At most one generation of a key is current.
create table if not exists object (
  id             uuid primary key,
  bucket         text not null,
  key            text not null check (octet_length(key) between 1 and 1024),
  version_id     text,                              -- the storage's version, where the bucket has versions
  etag           text not null check (etag <> ''),  -- without quotes
  sha256         bytea check (octet_length(sha256) = 32),               -- null: came by a door that did not hash
  size_bytes     bigint not null check (size_bytes >= 0),
  content_type   text not null,
  filename       text,
  status         text not null default 'processing'
                 check (status in ('processing', 'ready', 'partial', 'rejected')),
  rejection      jsonb check ((status = 'rejected') = (rejection is not null)),   -- {code, detail, processor}
  taken_at       timestamp,                         -- local time of the camera, from the exif facts
  camera         text,                              -- "make model", from the exif facts
  created_at     timestamptz not null default now(),
  settled_at     timestamptz,                       -- when no job of it was left to do
  superseded_at  timestamptz,
  deleted_at     timestamptz
);
create unique index if not exists object_current on object (bucket, key)
  where superseded_at is null and deleted_at is null;
create index if not exists object_newest on object (created_at desc, id desc)
  where superseded_at is null and deleted_at is null;
create index if not exists object_taken on object (taken_at)
  where superseded_at is null and deleted_at is null;
create index if not exists object_key on object (bucket, key text_pattern_ops);
create index if not exists object_status on object (status, created_at desc)
  where superseded_at is null and deleted_at is null;

-- One processor applied to one object. A row that was never dispatched is the outbox entry.
create table if not exists job (
  id             bigint generated always as identity primary key,
  object_id      uuid not null references object (id) on delete cascade,
  processor      text not null,
  version        int not null,
  state          text not null default 'ready' check (state in ('ready', 'running', 'done', 'dead', 'discarded')),
  outcome        text check (outcome in ('ok', 'rejected', 'superseded')),
  priority       smallint not null default 0,
  attempt        int not null default 0 check (attempt >= 0),      -- runs that count
  crashes        int not null default 0 check (crashes >= 0),      -- a child died over it
  expiries       int not null default 0 check (expiries >= 0),     -- a worker fell silent over it
  max_attempts   int not null check (max_attempts >= 1),
  token          bigint not null default 0,                        -- fences off whoever claimed it before
  run_at         timestamptz not null default now(),
  dispatched_at  timestamptz,
  lease_until    timestamptz,
  worker         text,
  error_code     text,
  error          jsonb,                                            -- of the last failure
  created_at     timestamptz not null default now(),
  started_at     timestamptz,                                      -- of the last run
  finished_at    timestamptz,
  unique (object_id, processor),
  check ((state = 'running') = (lease_until is not null)),
  check ((state = 'done') = (outcome is not null)),
  check ((state in ('done', 'dead', 'discarded')) = (finished_at is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create index if not exists job_waiting on job (processor, priority desc, run_at, id) where state = 'ready';
create index if not exists job_lease on job (lease_until) where state = 'running';
create index if not exists job_dead on job (finished_at desc, id desc) where state = 'dead';
create index if not exists job_tally on job (processor, state, outcome);
create index if not exists job_error on job (error_code, id) where error_code is not null;

-- One run of a job. `outcome` null: still running, or its worker never spoke again.
create table if not exists job_attempt (
  job_id      bigint not null references job (id) on delete cascade,
  token       bigint not null,
  processor   text not null,
  worker      text not null,
  started_at  timestamptz not null default now(),
  ended_at    timestamptz,
  outcome     text check (outcome in
              ('ok', 'rejected', 'superseded', 'retry', 'snoozed', 'dead', 'crashed', 'released', 'expired')),
  error_code  text,
  error       jsonb,
  primary key (job_id, token),
  check ((ended_at is null) = (outcome is null))
);
create index if not exists job_attempt_ended on job_attempt (ended_at) include (processor, outcome, started_at);

-- What a preview is now. Its bytes lie in the derived bucket under this key.
create table if not exists artifact (
  object_id       uuid not null references object (id) on delete cascade,
  preset          text not null,
  preset_version  text not null,
  bucket          text not null,
  key             text not null,
  etag            text not null,
  sha256          bytea not null check (octet_length(sha256) = 32),
  size_bytes      bigint not null,
  content_type    text not null,
  width_px        int not null check (width_px > 0),
  height_px       int not null check (height_px > 0),
  created_at      timestamptz not null default now(),
  primary key (object_id, preset)
);

create table if not exists facts (
  object_id   uuid not null references object (id) on delete cascade,
  processor   text not null,
  version     int not null,
  facts       jsonb not null,
  created_at  timestamptz not null default now(),
  primary key (object_id, processor)
);

-- Who is alive. A worker that has not been seen for a few heartbeats is gone.
create table if not exists worker (
  id          text primary key,
  host        text not null,
  pid         int not null,
  version     text not null,
  slots       int not null,
  started_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now(),
  stopping    boolean not null default false
);

-- Client retries: one answer per (principal, key). The S3 key is chosen before the first byte, so a retry after a
-- crash writes to the same place.
create table if not exists idempotency (
  principal     text not null,
  key           text not null check (length(key) between 1 and 255),
  request       text not null,              -- method and target, to tell a reused key from a retry
  uploads       jsonb not null,             -- the object keys given to it, in order
  answer        jsonb,                      -- [{id, sha256}, ...] once committed
  locked_until  timestamptz,
  created_at    timestamptz not null default now(),
  primary key (principal, key)
);
create index if not exists idempotency_created on idempotency (created_at);

-- Multipart uploads of ours under way, written before they are created. One whose owner has not been heard of for a
-- minute is dangling, provably (storage.multiparts).
create table if not exists multipart (
  id          uuid primary key,
  bucket      text not null,
  key         text not null,
  owner       text not null,
  created_at  timestamptz not null default now(),
  seen_at     timestamptz not null default now()
);
create index if not exists multipart_key on multipart (bucket, key);
create index if not exists multipart_seen on multipart (seen_at);

-- Who replayed, discarded or promoted what.
create table if not exists job_action (
  id      bigint generated always as identity primary key,
  job_id  bigint not null references job (id) on delete cascade,
  action  text not null check (action in ('replay', 'discard', 'promote')),
  actor   text not null,
  note    text,
  at      timestamptz not null default now()
);
create index if not exists job_action_job on job_action (job_id);

-- Derived objects whose photo is gone, deleted from S3 once the transaction that put them here has committed. The
-- source's key is kept, because a photo that came back under it owns its previews again.
create table if not exists garbage (
  bucket         text not null,
  key            text not null,
  source_bucket  text not null,
  source_key     text not null,
  at             timestamptz not null default now(),
  primary key (bucket, key)
);

-- Where each comparison with the storage stands. One row per part of a bucket and runner; a crash continues here.
create table if not exists reconcile (
  runner            text not null check (runner in ('gateway', 'command')),
  bucket            text not null,
  prefix            text not null default '',
  phase             text not null,
  cursor            text not null default '',           -- the last key looked at, in the phase's own order
  keys              bigint not null default 0,          -- looked at in this pass
  findings          jsonb not null default '{}',        -- of this pass: finding -> action -> count
  started_at        timestamptz not null default now(),
  finished_at       timestamptz,                        -- null: this pass is under way
  last_finished_at  timestamptz,                        -- of any pass
  primary key (runner, bucket, prefix)
);
create index if not exists artifact_key on artifact (bucket, key text_pattern_ops);

-- Version 3. Direct uploads: what a client who puts the bytes into the storage itself was promised, and promised. The photo
-- is named by the transaction that records it, by whatever door (storage.uploads).
create table if not exists upload (
  id            uuid primary key,                       -- also in the object's metadata: the proof of where it came from
  principal     text not null,                          -- access key that opened it
  method        text not null check (method in ('put', 'multipart', 'post')),
  bucket        text not null,
  key           text not null check (octet_length(key) between 1 and 1024),
  filename      text,
  content_type  text,                                   -- null: nothing was promised
  size_bytes    bigint check (size_bytes > 0),          -- null: a form, which has a limit of its own
  part_bytes    bigint check (part_bytes > 0),
  multipart_id  text,                                   -- the storage's own id
  created_at    timestamptz not null default now(),
  expires_at    timestamptz not null,                   -- of the addresses
  object_id     uuid references object (id) on delete set null,
  aborted_at    timestamptz,
  closed_at     timestamptz,                            -- nothing is left for the housekeeping to do
  check ((method = 'multipart') = (multipart_id is not null)),
  check ((method = 'multipart') = (part_bytes is not null)),
  check (method = 'post' or size_bytes is not null)
);
create index if not exists upload_open on upload (principal) where object_id is null and aborted_at is null;
create index if not exists upload_unclosed on upload (expires_at) where closed_at is null;
create index if not exists upload_unclosed_key on upload (bucket, key) where closed_at is null;
create index if not exists upload_newest on upload (created_at desc, id desc);
create index if not exists upload_object on upload (object_id) where object_id is not null;

-- Rejected photos that are moved, or were, to the bucket for such: planned, then copied, then removed where they were.
create table if not exists quarantine (
  object_id   uuid primary key references object (id) on delete cascade,
  bucket      text not null,
  key         text not null,
  etag        text,                                     -- of the copy
  planned_at  timestamptz not null default now(),
  copied_at   timestamptz,                              -- the copy was compared with the original
  removed_at  timestamptz,
  check ((etag is null) = (copied_at is null)),
  check (removed_at is null or copied_at is not null)
);

-- Version 4. What happened, for others to hear; written with the change that it tells of. Places are given after the
-- commit, by one at a time (storage.events.sequence), so that no reader passes over what commits late.
create table if not exists event (
  id         bigint generated always as identity,
  seq        bigint check (seq > 0),                -- its place; null: none yet
  type       text not null check (type in
             ('photo.stored', 'photo.ready', 'photo.partial', 'photo.rejected', 'photo.deleted', 'job.dead')),
  object_id  uuid not null,                         -- no reference: checking one costs each upload, and rows of objects stay
  bucket     text not null,
  key        text not null,
  data       jsonb not null,
  at         timestamptz not null default now()
);
create unique index if not exists event_waiting on event (id) where seq is null;
create unique index if not exists event_place on event (seq) where seq is not null;
create table if not exists event_line (
  one         boolean primary key default true check (one),   -- there is one row
  last_seq    bigint not null default 0,                      -- the last place that was given
  pruned_seq  bigint not null default 0                       -- up to here events were forgotten
);
insert into event_line (one) values (true) on conflict do nothing;
-- Who is told of events by HTTP. A secret is sealed with the master key (storage.sealing); the old one signs as well until
-- its time is over.
create table if not exists webhook (
  id                 uuid primary key,
  name               text not null default '',
  url                text not null check (length(url) between 1 and 2048),
  types              text[] not null default '{}',        -- empty: all
  bucket             text,                                -- null: any
  prefix             text not null default '',
  sealed_secret      bytea not null,
  sealed_old_secret  bytea,
  old_secret_until   timestamptz,
  created_by         text not null,
  created_at         timestamptz not null default now(),
  updated_at         timestamptz not null default now(),
  disabled_at        timestamptz,
  disabled_reason    text check (disabled_reason in ('asked', 'gone')),   -- gone: it answered 410
  failing_since      timestamptz,                         -- the first failure since the last success
  check ((disabled_at is null) = (disabled_reason is null)),
  check ((sealed_old_secret is null) = (old_secret_until is null))
);
-- One event for one webhook: made in the transaction that gives the event its place, then claimed like a job.
create table if not exists delivery (
  id           bigint generated always as identity primary key,
  webhook_id   uuid not null references webhook (id) on delete cascade,
  event_id     text not null,
  type         text not null,
  body         jsonb not null,                                    -- what is sent, however long the event is kept
  state        text not null default 'ready' check (state in ('ready', 'running', 'delivered', 'dead', 'discarded')),
  attempt      int not null default 0 check (attempt >= 0),       -- since it was made or last redelivered
  token        bigint not null default 0,                         -- all attempts; fences off whoever claimed it before
  run_at       timestamptz not null default now(),
  lease_until  timestamptz,
  status_code  int,                                               -- of the last answer
  error_code   text,                                              -- of the last failure
  error        text,
  created_at   timestamptz not null default now(),
  finished_at  timestamptz,
  check ((state = 'running') = (lease_until is not null)),
  check ((state in ('delivered', 'dead', 'discarded')) = (finished_at is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create index if not exists delivery_due on delivery (webhook_id, run_at, id) where state = 'ready';
create index if not exists delivery_lease on delivery (lease_until) where state = 'running';
create index if not exists delivery_newest on delivery (webhook_id, id desc);
create index if not exists delivery_dead on delivery (webhook_id, id desc) where state = 'dead';
create index if not exists delivery_tally on delivery (webhook_id, state);
create index if not exists delivery_finished on delivery (finished_at) where finished_at is not null;
create table if not exists delivery_attempt (
  delivery_id  bigint not null references delivery (id) on delete cascade,
  token        bigint not null,
  worker       text not null,
  started_at   timestamptz not null default now(),
  ended_at     timestamptz,
  outcome      text check (outcome in ('delivered', 'failed', 'dead', 'snoozed', 'released', 'expired')),
  status_code  int,
  error_code   text,
  error        text,
  response     text,                                              -- the beginning of the answer's body
  retry_at     timestamptz,                                       -- null: no further attempt was planned
  primary key (delivery_id, token),
  check ((ended_at is null) = (outcome is null))
);

-- Version 5. Processors that people paused, what people did, and dead letters that failed alike.
create table if not exists pause (
  processor  text primary key check (length(processor) between 1 and 100),
  actor      text not null,
  note       text,
  at         timestamptz not null default now()
);
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'job'::regclass and attname = 'error_group') then
    alter table job add column if not exists error_group text not null default '';   -- storage.errorgroups.group_of
    drop index if exists job_due, job_ready_age;        -- job_waiting does for both, and passes over what is paused
  end if;
  if to_regclass('action') is null then
    create table action (                               -- one line for each thing that somebody did
      id         bigint generated always as identity primary key,
      action     text not null check (action in ('replay', 'discard', 'promote', 'pause', 'resume')),
      actor      text not null,
      note       text,
      processor  text,                                  -- of a pause or resume
      filter     jsonb,                                 -- which jobs were meant; null: those that were named
      jobs       int not null default 0,                -- that were changed
      job_ids    bigint[] not null default '{}',        -- the first of them
      at         timestamptz not null default now()
    );
    insert into action (action, actor, note, jobs, job_ids, at)
      select action, actor, note, count(*), (array_agg(job_id order by job_id))[1:5], at
      from job_action group by action, actor, note, at order by min(id);
  end if;
end $$;
create index if not exists job_error_group on job (processor, error_code, error_group, id) include (finished_at)
  where state = 'dead';
create index if not exists object_any_key on object (key text_pattern_ops);

-- Version 7. Browsers that signed in with a key. Another secret of the key ends its sessions (storage.sessions).
create table if not exists browser_session (
  token_hash   bytea primary key check (octet_length(token_hash) = 32),   -- sha256 of the cookie's token
  access_key   text not null references api_key (access_key) on delete cascade,
  secret_hash  bytea not null,                                            -- the key's at the sign-in
  created_at   timestamptz not null default now(),
  expires_at   timestamptz not null
);
create index if not exists browser_session_expires on browser_session (expires_at);
create index if not exists browser_session_key on browser_session (access_key);

-- Version 6. Messages about buckets that nobody could use: a few of each kind, so that one can see what a storage sends.
create table if not exists unusable_message (
  id           bigint generated always as identity primary key,
  origin       text not null check (origin in ('webhook', 'minio-redis', 'sqs')),
  reason       text not null,
  body         bytea not null check (octet_length(body) <= 4096),  -- its beginning
  size_bytes   bigint not null,
  received_at  timestamptz not null default now()
);
create index if not exists unusable_message_reason on unusable_message (reason, id);

-- Version 8. The request that brought an object, so that it can be followed through the logs of every process.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'object'::regclass and attname = 'request_id') then
    alter table object add column if not exists request_id text check (length(request_id) between 1 and 64);
  end if;
end $$;

-- Version 9. Workers that left, told apart from those that fell silent; jobs that were waiting and were told to run now.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'worker'::regclass and attname = 'left_at') then
    alter table worker add column if not exists left_at timestamptz;   -- null: it has not said that it ends
    alter table job_action drop constraint job_action_action_check,
      add constraint job_action_action_check check (action in ('replay', 'discard', 'promote'));
    alter table action drop constraint action_action_check,
      add constraint action_action_check check (action in ('replay', 'discard', 'promote', 'pause', 'resume'));
  end if;
end $$;

insert into schema_version (version) values (1), (2), (3), (4), (5), (6), (7), (8), (9) on conflict do nothing;
