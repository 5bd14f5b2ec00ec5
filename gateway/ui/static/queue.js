// The queue as the people on call look at it: what each processor has to do and how fast it is, who works, what is away.

import { call, get, may, Problem, session } from "./api.js";
import { showDead } from "./app.js";
import { makeChart } from "./chart.js";
import { openDialog } from "./dialog.js";
import { fill, h, icon, loading, notice, put, say, toast } from "./dom.js";
import { ago, count, duration, number, time, workerName } from "./format.js";
import { openJobs } from "./jobs.js";

export const title = "Queue";

const STATS_MS = 1200;  // a worker that is gone must be seen within five seconds
const HISTORY_MS = 6000;
const SILENT_SECONDS = 2.4;
const GONE_MS = 15 * 60 * 1000;
const SPANS = [[15, "Last 15 minutes"], [60, "Last hour"], [360, "Last 6 hours"], [1440, "Last day"]];
const NAMES = { postgres: "Postgres", redis: "Redis", s3: "S3", storage: "S3" };

const gone = new Map();  // id -> {worker, at}: seen by this page, and then not any more

export function open(outlet) {
  const page = { closed: false, cards: new Map(), workers: new Map(), minutes: 60, timers: [], last: null };
  const span = h("select", { "aria-label": "Time that the lines show", class: "small", on: { change: () => { page.minutes = Number(span.value); showHistory(page); } } },
    SPANS.map(([minutes, name]) => h("option", { value: minutes, selected: minutes === page.minutes }, name)));
  page.top = h("div", { class: "section" });
  page.depends = h("ul", { class: "depends", role: "list" });
  page.processors = h("div", { class: "tiles" }, loading("the queue"));
  page.workerList = h("ul", { class: "workers", role: "list" });
  page.workerHead = h("h2", {}, "Workers");
  page.facts = h("p", { class: "hint" });
  put(outlet, h("div", { class: "page" },
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Queue"), page.facts), h("div", { class: "actions" }, span)),
    page.top,
    h("section", { class: "section", "aria-label": "Processors" }, page.processors),
    h("section", { class: "section" }, page.workerHead, page.workerList),
    h("section", { class: "section" }, h("h2", {}, "Dependencies"), page.depends)));
  if (session.current.places.length) {
    put(page.processors, notice("plain", "The queue is for keys that are not limited.", h("p", {}, `Yours is limited to ${session.current.places.join(", ")}.`)));
    return { close: () => { page.closed = true; } };
  }
  repeat(page, showStats, STATS_MS);
  repeat(page, showReadiness, 3000);
  page.timers.push(setTimeout(() => repeat(page, showHistory, HISTORY_MS), HISTORY_MS));
  return { close: () => { page.closed = true; page.timers.forEach(clearTimeout); } };
}

/** Again and again, never twice at once, and not while nobody looks. */
async function repeat(page, action, milliseconds) {
  if (page.closed || !session.current) return;
  if (!document.hidden) {
    try {
      await action(page);
      if (action === showStats && page.problem) { page.problem = null; showTop(page); }
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (action === showStats && !page.closed) { page.problem = error; showTop(page); }
    }
  }
  page.timers = page.timers.slice(-8);
  page.timers.push(setTimeout(() => repeat(page, action, milliseconds), milliseconds));
}

async function showStats(page) {
  const stats = await get("/v1/stats");
  if (page.closed) return;
  showDead(stats);
  showProcessors(page, stats);
  showWorkers(page, stats);
  page.facts.textContent = [stats.redis_stream_depth === null ? "Redis is away: workers ask Postgres" : `${count(stats.redis_stream_depth, "message")} in Redis`,
    stats.uploads_waiting ? `${count(stats.uploads_waiting, "upload")} waiting for memory` : ""].filter(Boolean).join(" · ");
  const first = !page.last;
  page.last = stats;
  showTop(page);
  if (first) await showHistory(page);
}

function showTop(page) {
  const notices = [];
  if (page.problem) notices.push(notice("bad", "What is shown may be old.", h("p", {}, page.problem.sentence)));
  const stats = page.last;
  if (stats) {
    const waiting = Object.values(stats.processors).reduce((sum, item) => sum + item.ready, 0);
    if (!stats.workers.length) notices.push(notice("bad", "No worker is running.", h("p", {}, waiting ? `${count(waiting, "job waits", "jobs wait")}. ` : "", "Start one with ", h("code", {}, "safelight worker"), ". Uploads go on meanwhile.")));
  }
  const mark = notices.map((item) => item.textContent).join();
  if (mark === page.topMark) return;
  page.topMark = mark;
  put(page.top, notices);
  page.top.hidden = !notices.length;
  if (mark) say(mark);
}

// --- processors

function showProcessors(page, stats) {
  if (!page.cards.size) put(page.processors);
  for (const [name, item] of Object.entries(stats.processors)) {
    let card = page.cards.get(name);
    if (!card) {
      card = makeCard(page, name);
      page.cards.set(name, card);
      page.processors.append(card.root);
    }
    card.update(item);
  }
}

function makeCard(page, name) {
  const state = h("span", { class: "badge" });
  const note = h("p", { class: "hint", hidden: true });
  const button = may("admin") ? h("button", { type: "button", class: "small" }) : null;
  const cell = (state) => {
    const much = h("span", { class: "much" }, "0");
    const parts = [much, h("span", { class: "what" }, state)];
    const list = () => openJobs(`${name}: ${state}`, { processor: name, state });
    const root = state === "dead" ? h("a", { href: `/dead?processor=${encodeURIComponent(name)}` }, parts) : h("button", { type: "button", on: { click: list } }, parts);
    return { much, root };
  };
  const cells = Object.fromEntries(["ready", "running", "done", "dead"].map((state) => [state, cell(state)]));
  const oldest = h("p", { class: "hint" });
  const rate = makeChart("Jobs a minute", { say: (value) => number(Math.round(value * 10) / 10), sayMark: (mark) => count(mark, "failure") });
  const latency = makeChart("Run time, p95", { say: duration });
  const charts = h("div", { class: "charts", hidden: true }, rate.root, latency.root);
  const root = h("section", { class: "card processor", "aria-label": name }, h("div", { class: "processor-head" }, h("h2", {}, name), state, button), note,
    h("div", { class: "counts" }, Object.values(cells).map((item) => item.root)), oldest, charts);
  let paused = null;
  if (button) fill(button, { on: { click: () => (paused ? resume(page, name, button) : askPause(page, name)) } });

  function update(item) {
    paused = item.paused || null;
    for (const [key, part] of Object.entries(cells)) part.much.textContent = number(item[key]);
    cells.dead.root.className = item.dead ? "hot" : "";
    cells.running.root.className = item.running ? "warm" : "";
    state.className = `badge ${paused ? "paused" : item.running ? "running" : item.ready ? "processing" : "done"}`;
    state.textContent = paused ? "Paused" : item.running ? "Working" : item.ready ? "Waiting" : "Idle";
    note.hidden = !paused;
    note.textContent = paused ? `Paused by ${paused.by} ${ago(paused.at)}${paused.note ? `: ${paused.note}` : ""}. Uploads go on; their jobs wait.` : "";
    const window = item.windows["5m"];
    oldest.textContent = [item.oldest_ready_seconds === null ? "Nothing is due" : `The oldest due job waits for ${duration(item.oldest_ready_seconds)}`,
      window && window.jobs ? `p50 ${duration(window.p50_seconds)}, p99 ${duration(window.p99_seconds)} in 5 minutes` : "", item.rejected ? `${number(item.rejected)} of the done rejected their photo` : ""].filter(Boolean).join(" · ");
    if (button && "paused" in item && button.dataset.paused !== String(Boolean(paused))) {
      button.dataset.paused = String(Boolean(paused));
      put(button, icon(paused ? "play" : "pause"), paused ? "Resume" : "Pause", h("span", { class: "unseen" }, ` ${name}`));
    }
    if (button) button.hidden = !("paused" in item);
  }

  function draw(trend, history) {
    charts.hidden = false;
    const common = { from: history.from, stepSeconds: history.step_seconds };
    rate.update({ ...common, values: trend.ok.map((jobs) => (jobs * 60) / history.step_seconds), marks: trend.failed.map((jobs, at) => jobs + trend.dead[at]) });
    latency.update({ ...common, values: trend.p95_seconds });
  }

  return { root, update, draw };
}

async function showHistory(page) {
  const history = await get("/v1/stats/history", { minutes: page.minutes }).catch((error) => {
    if (error.status === 404) return null;
    throw error;
  });
  if (page.closed || !history) return;
  for (const [name, trend] of Object.entries(history.processors)) {
    const card = page.cards.get(name);
    if (card) card.draw(trend, history);
  }
}

function askPause(page, name) {
  const input = h("input", { id: "pause-note", type: "text", maxlength: "1000", autocomplete: "off" });
  const { body, close } = openDialog(`Pause ${name}?`);
  const button = h("button", { type: "submit", class: "primary" }, icon("pause"), `Pause ${name}`);
  body.append(h("form", { class: "section", on: { submit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    if (await act(page, name, "pause", input.value.trim())) close();
    button.disabled = false;
  } } }, h("p", {}, "Running jobs finish, no new one is begun. Photos are still taken in; their jobs wait until somebody resumes."),
  h("div", { class: "field" }, h("label", { for: "pause-note" }, "Why (others will see it)"), input),
  h("div", { class: "dialog-foot" }, h("button", { type: "button", on: { click: close } }, "Cancel"), button)));
  input.focus();
}

async function resume(page, name, button) {
  button.disabled = true;
  await act(page, name, "resume", "");
  button.disabled = false;
}

async function act(page, name, action, note) {
  try {
    await call("POST", `/v1/processors/${encodeURIComponent(name)}/${action}`, { body: note ? { note } : {} });
    toast(action === "pause" ? `${name} is paused.` : `${name} runs again.`, "good");
    await showStats(page).catch(() => null);
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    toast(error.sentence, "bad");
    return false;
  }
}

// --- workers

function showWorkers(page, stats) {
  const now = new Date(stats.at).getTime();
  const here = new Map(stats.workers.map((worker) => [worker.id, worker]));
  for (const worker of page.last ? page.last.workers : []) {
    if (here.has(worker.id) || worker.stopping || gone.has(worker.id)) continue;
    gone.set(worker.id, { worker, at: now });
    say(`Worker ${workerName(worker.id)} is gone.`);
  }
  for (const [id, { at }] of gone) if (here.has(id) || now - at > GONE_MS) gone.delete(id);
  const cards = [...gone.values()].map(({ worker }) => goneCard(worker, now)).concat(stats.workers.map((worker) => workerCard(worker, now)));
  page.workerHead.textContent = stats.workers.length ? `${count(stats.workers.length, "worker")}, ${count(stats.workers.reduce((sum, worker) => sum + worker.slots, 0), "slot")}` : "Workers";
  const mark = JSON.stringify([...gone.keys()]) + cards.map((card) => card.textContent).join();
  if (mark === page.workerMark) return;
  page.workerMark = mark;
  put(page.workerList, cards.length ? cards : h("li", { class: "hint" }, "None."));
}

function workerCard(worker, now) {
  const quiet = (now - new Date(worker.seen_at).getTime()) / 1000;
  const silent = quiet > SILENT_SECONDS;
  const [kind, word] = worker.stopping ? ["paused", "Stopping"] : silent ? ["silent", `Silent for ${duration(quiet)}`] : worker.running.length ? ["running", "Working"] : ["up", "Idle"];
  const slots = Array.from({ length: Math.min(worker.slots, 64) }, (_, at) => h("i", { class: at < worker.running.length ? "on" : "" }));
  return h("li", { class: `card worker ${silent ? "silent" : ""}` },
    h("div", { class: "worker-head" }, h("span", { class: "worker-name", title: worker.id }, workerName(worker.id)), h("span", { class: `badge ${kind}` }, word)),
    h("div", { class: "slots", role: "img", "aria-label": `${worker.running.length} of ${worker.slots} slots busy` }, slots),
    h("p", { class: "hint" }, `pid ${worker.pid} on ${worker.host} · ${worker.version} · up for ${duration((now - new Date(worker.started_at)) / 1000)}`),
    worker.running.length > 0 && h("ul", { class: "running" }, worker.running.slice(0, 8).map((job) => h("li", {}, `${job.processor}: ${job.bucket}/${job.key}, ${duration(job.seconds)}`))));
}

function goneCard(worker, now) {
  return h("li", { class: "card worker gone" },
    h("div", { class: "worker-head" }, h("span", { class: "worker-name", title: worker.id }, workerName(worker.id)), h("span", { class: "badge gone" }, "Gone")),
    h("p", {}, `Last heard of ${ago(worker.seen_at, now)}. It did not say goodbye.`),
    h("p", { class: "hint" }, worker.running.length ? `It ran ${count(worker.running.length, "job")}; others take over when the lease ends.` : `pid ${worker.pid}. It ran nothing.`));
}

// --- dependencies

async function showReadiness(page) {
  const readiness = await get("/readyz");
  if (page.closed) return;
  put(page.depends, Object.entries(readiness.dependencies).map(([name, item]) => h("li", { class: item.up ? "" : "down" },
    h("span", { class: `badge ${item.up ? "up" : "down"}` }, item.up ? "Up" : "Down"), h("span", { class: "strong" }, NAMES[name] || name),
    h("span", { class: "hint" }, item.up ? "" : `since ${item.down_since ? `${time(item.down_since)}, ${ago(item.down_since)}` : "just now"}; ${item.required ? "uploads are refused" : "uploads go on"}`))));
}
