// Who works on the queue and who is gone, what the gateway does again and again, and what Redis says of itself.

import { get } from "./api.js";
import { h, put, say } from "./dom.js";
import { ago, count, duration, number, size, time, workerName } from "./format.js";

const SILENT_SECONDS = 2.4;
const STOPPED_SHOWN = 6;
const TURNS = { dispatch: "Dispatch of due jobs", housekeeping: "Housekeeping", reconcile: "Reconciling with the storage" };

export function showWorkers(page, stats) {
  const now = new Date(stats.at).getTime();
  const lost = (stats.gone_workers || []).filter((worker) => !worker.left_at);
  const before = new Set(page.last ? page.last.workers.map((worker) => worker.id) : []);
  for (const worker of lost) if (before.has(worker.id)) say(`Worker ${workerName(worker.id)} is gone.`);
  const cards = lost.map((worker) => goneCard(worker, now)).concat(stats.workers.map((worker) => workerCard(worker, now)));
  const slots = stats.workers.reduce((sum, worker) => sum + worker.slots, 0);
  const busy = stats.workers.reduce((sum, worker) => sum + worker.running.length, 0);
  page.workerHead.textContent = stats.workers.length ? `${count(stats.workers.length, "worker")}, ${number(busy)} of ${count(slots, "slot")} busy` : "Workers";
  showStopped(page, (stats.gone_workers || []).filter((worker) => worker.left_at), now);
  const mark = cards.map((card) => card.textContent).join();
  if (mark === page.workerMark) return;
  page.workerMark = mark;
  put(page.workerList, cards.length ? cards : h("li", { class: "hint" }, "None."));
}

/** Those that ended as they were told to are worth a line, not an alarm. */
function showStopped(page, stopped, now) {
  const told = stopped.slice(0, STOPPED_SHOWN).map((worker) => `${workerName(worker.id)} ${ago(worker.left_at, now)}`);
  page.stopped.hidden = !told.length;
  page.stopped.textContent = `Stopped as told: ${told.join(", ")}${stopped.length > told.length ? ` and ${stopped.length - told.length} more` : ""}.`;
}

function workerCard(worker, now) {
  const quiet = (now - new Date(worker.seen_at).getTime()) / 1000;
  const silent = quiet > SILENT_SECONDS;
  const [kind, word] = worker.stopping ? ["paused", "Stopping"] : silent ? ["silent", `Silent for ${duration(quiet)}`] : worker.running.length ? ["running", "Working"] : ["up", "Idle"];
  const slots = Array.from({ length: Math.min(worker.slots, 64) }, (_, at) => h("i", { class: at < worker.running.length ? "on" : "" }));
  return h("li", { class: `card worker ${silent ? "silent" : ""}` },
    h("div", { class: "worker-head" }, h("span", { class: "worker-name", title: worker.id }, workerName(worker.id)), h("span", { class: `badge ${kind}` }, word)),
    h("div", { class: "slots", "aria-hidden": "true" }, slots),
    h("p", { class: "hint" }, `${worker.running.length} of ${count(worker.slots, "slot")} busy · pid ${worker.pid} on ${worker.host} · ${worker.version} · up for ${duration((now - new Date(worker.started_at)) / 1000)}`),
    worker.running.length > 0 && h("ul", { class: "running" }, worker.running.slice(0, 8).map((job) => h("li", {}, `${job.processor}: ${job.bucket}/${job.key}, ${duration(job.seconds)}`))));
}

function goneCard(worker, now) {
  return h("li", { class: "card worker gone" },
    h("div", { class: "worker-head" }, h("span", { class: "worker-name", title: worker.id }, workerName(worker.id)), h("span", { class: "badge gone" }, "Gone")),
    h("p", {}, `Last heard of ${ago(worker.seen_at, now)}. ${worker.stopping ? "It was stopping, and did not come to its end." : "It did not say goodbye."}`),
    h("p", { class: "hint" }, `pid ${worker.pid} on ${worker.host}. ${worker.jobs ? `It ran ${count(worker.jobs, "job")}; others take over when the lease ends.` : "It holds no job."}`));
}

// --- what the gateway does, and Redis

export function showTurns(page, stats) {
  const now = new Date(stats.at).getTime();
  put(page.turns, (stats.turns || []).map((turn) => h("li", {}, h("span", { class: "strong" }, TURNS[turn.name] || turn.name),
    h("span", { class: "hint" }, turn.every_seconds === null ? "switched off" : `${turn.last_at ? `last ${ago(turn.last_at, now)}` : "not yet"}, every ${duration(turn.every_seconds)}${turn.next_at ? `, next at ${time(turn.next_at).split(", ")[1]}` : ""}`))));
}

export async function showRedis(page) {
  const { redis } = await get("/v1/stats/redis");
  if (page.closed) return;
  page.redis.hidden = false;
  const pair = (name, value) => (value === null || value === undefined ? null : [h("dt", {}, name), h("dd", { class: "num" }, value)]);
  put(page.redis, h("h2", {}, redis && redis.server === "valkey" ? "Valkey" : "Redis"), redis ? h("dl", { class: "pairs card" },
    pair("Version", [redis.version, redis.mode, redis.role].filter(Boolean).join(", ")),
    pair("Runs on", [redis.os, redis.port && `port ${redis.port}`].filter(Boolean).join(", ") || null),
    pair("Up for", redis.uptime_seconds === null ? null : duration(redis.uptime_seconds)),
    pair("Memory", redis.used_memory_bytes === null ? null : `${size(redis.used_memory_bytes)} used, at its peak ${size(redis.peak_memory_bytes)}; ${redis.max_memory_bytes ? `limit ${size(redis.max_memory_bytes)}` : "no limit"}${redis.system_memory_bytes ? `; the machine has ${size(redis.system_memory_bytes)}` : ""}`),
    pair("Fragmentation", redis.fragmentation_ratio),
    pair("When full", redis.eviction_policy && `${redis.eviction_policy}; ${count(redis.evicted_keys || 0, "key")} evicted so far`),
    pair("Append-only file", redis.append_only_file === null ? null : redis.append_only_file ? "on" : "off"),
    pair("Clients", redis.connected_clients === null ? null : `${number(redis.connected_clients)} connected, ${number(redis.blocked_clients || 0)} of them blocked`),
    pair("Stream of job ids", `${number(redis.stream_messages)} not taken, ${number(redis.stream_pending)} taken and not acknowledged, ${count(redis.stream_consumers, "consumer")}`))
    : h("p", { class: "hint" }, "It does not answer. Jobs are found in Postgres meanwhile."));
}
