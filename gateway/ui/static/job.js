// A job as people read it: what became of it, and every attempt with its error.

import { call, get, may, Problem } from "./api.js";
import { openDialog } from "./dialog.js";
import { copier, fill, h, icon, loading, notice, put, toast } from "./dom.js";
import { ago, count, duration, size, time, workerName } from "./format.js";

const OUTCOMES = {
  ok: "Done", rejected: "Rejected the photo", superseded: "Superseded", retry: "Failed, tried again", snoozed: "Waited for a dependency",
  dead: "Gave up", crashed: "The decoder died", released: "Handed back", expired: "Its worker fell silent",
};

/** One word or two for where a job stands. */
export function stateWord(job) {
  if (job.state === "done") return job.outcome === "ok" ? "Done" : OUTCOMES[job.outcome] || job.outcome;
  if (job.state === "ready") return isLater(job) ? "Later" : job.error ? "Waits to be tried again" : "Waiting";
  return { running: "Running", dead: "Dead", discarded: "Discarded" }[job.state] || job.state;
}

/** Whether its time has not come. */
export function isLater(job) {
  return job.state === "ready" && new Date(job.run_at) > new Date();
}

export function stateBadge(job) {
  const kind = job.state === "done" ? job.outcome : job.state;
  return h("span", { class: `badge ${kind}` }, stateWord(job));
}

/** What an error says, in one line. */
export function errorText(error) {
  if (!error) return "";
  return error.detail || error.reason || error.cause || error.code;
}

/** A job that opens to its attempts, read when it is opened. `onChange` runs after a replay or a discard. */
export function jobRow(job, { opened = false, onChange = null } = {}) {
  const body = h("div", { class: "job-body" });
  const row = h("details", { class: "job", open: opened },
    h("summary", {}, h("span", { class: "strong" }, job.processor), stateBadge(job),
      h("span", { class: "grow hint" }, job.error && job.outcome !== "ok" ? errorText(job.error) : ""), icon("down")), body);
  const fillBody = () => showJob(body, job.id, onChange);
  row.addEventListener("toggle", () => { if (row.open && !body.firstChild) fillBody(); });
  if (opened) fillBody();
  return row;
}

/** Show all of a job in `body`. */
export async function showJob(body, id, onChange) {
  put(body, loading("the attempts"));
  try {
    put(body, jobDetail(await get(`/v1/jobs/${id}`), onChange));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    put(body, error.status === 403 ? h("p", { class: "hint" }, "Attempts are shown to keys that are not limited to places.") : notice("bad", error.title, h("p", {}, error.message)));
  }
}

/** Show one job by its number, over the page. `onChange` runs after something was done to it, and closes it. */
export function openJob(id, { heading = `Job ${id}`, onChange = null } = {}) {
  const { body, close } = openDialog(heading, { wide: true });
  const content = h("div", { class: "section", on: { click: (event) => { if (event.target.closest("a[href]:not([target])")) close(); } } });
  body.append(content);
  const show = () => showJob(content, id, onChange ? () => { close(); onChange(); } : show);
  show();
}

export function jobDetail(job, onChange) {
  const pair = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  const moment = (name, at, more = "") => at && pair(name, h("time", { datetime: at }, time(at)), more);
  const error = job.error && (job.state === "dead" || job.state === "ready" || job.outcome === "rejected") ? job.error : null;
  const { photo } = job;
  return [
    error && errorBox(error),
    actions(job, onChange),
    h("dl", { class: "pairs" },
      pair("State", stateBadge(job)),
      pair("Processor", `${job.processor}, version ${job.version}`),
      pair("Photo", h("a", { href: `/photos/${job.photo_id}` }, `${job.bucket}/${job.key}`), h("span", { class: "hint" }, ` ${photo.content_type}, ${size(photo.size_bytes)}${photo.current ? "" : ", replaced or deleted since"}`)),
      pair("Attempts", `${job.attempt} of ${job.max_attempts}`, job.crashes ? `, ${count(job.crashes, "crash", "crashes")}` : "", job.expiries ? `, ${count(job.expiries, "silent worker")}` : ""),
      moment("Made", job.created_at),
      job.state === "ready" && moment("Due", job.run_at),
      moment(job.finished_at ? "Began" : "Began last", job.started_at),
      moment("Ended", job.finished_at),
      job.seconds !== null && pair("Duration", duration(job.seconds), job.state === "running" ? " so far" : ""),
      job.worker && pair("Worker", h("span", { class: "keyline" }, h("a", { href: `/jobs?worker=${encodeURIComponent(job.worker)}` }, h("code", {}, job.worker)), copier(job.worker, "the worker's id"))),
      made(job).length > 0 && pair("It made", h("ul", {}, made(job))),
      pair("In the logs", inLogs(job.photo_id, "the photo's id, to search logs for"), inLogs(`"job_id": ${job.id}`, "the job's number, to search logs for"),
        photo.request_id && inLogs(photo.request_id, "the request's id, to search logs for"))),
    attemptList(job.attempts),
    job.actions.length > 0 && h("ul", { class: "rows" }, job.actions.map((item) => h("li", { class: "hint" },
      `${{ replay: "Replayed", discard: "Discarded", promote: "Told to run now" }[item.action] || item.action} by ${item.actor}, ${ago(item.at)}${item.note ? `: ${item.note}` : ""}`))),
  ];
}

/** Words as they stand in the logs' JSON. */
function inLogs(words, what) {
  return h("span", { class: "keyline" }, h("code", {}, words), copier(words, what));
}

/** What its last run left behind. */
function made(job) {
  const facts = job.made.facts && Object.keys(job.made.facts).length;
  return [
    ...job.made.artifacts.map((item) => h("li", {}, h("a", { href: item.url, target: "_blank", rel: "noopener" }, item.preset), h("span", { class: "hint" }, ` ${item.width_px} × ${item.height_px}, ${size(item.size_bytes)}, ${item.bucket}/${item.key}`))),
    ...(facts ? [h("li", {}, h("a", { href: `/photos/${job.photo_id}` }, count(facts, "fact")))] : []),
  ];
}

function errorBox(error) {
  const more = [error.reason, error.cause].filter((text) => text && text !== errorText(error));
  return h("div", { class: "notice bad" }, icon("alert"), h("div", {},
    h("p", { class: "notice-title" }, errorText(error)), h("p", {}, h("code", {}, error.code)), more.map((text) => h("p", { class: "hint" }, text)),
    error.traceback && h("details", {}, h("summary", {}, "Traceback"), h("pre", { tabindex: "0" }, error.traceback))));
}

function attemptList(attempts) {
  if (!attempts.length) return h("p", { class: "hint" }, "It has not been tried yet.");
  return h("ol", { class: "attempts", "aria-label": "Attempts" }, [...attempts].reverse().map((item) => h("li", { class: "attempt" },
    h("div", { class: "attempt-line" }, h("span", { class: `badge ${item.outcome || "running"}` }, item.outcome ? OUTCOMES[item.outcome] || item.outcome : "Running"),
      h("span", { class: "soft num" }, `${time(item.started_at)}${item.seconds === null ? "" : `, ${duration(item.seconds)}`}`), h("span", { class: "soft" }, workerName(item.worker))),
    item.error && h("p", {}, errorText(item.error), " ", h("code", { class: "soft" }, item.error.code)),
    item.error && item.error.traceback && h("details", {}, h("summary", { class: "soft" }, "Traceback"), h("pre", { tabindex: "0" }, item.error.traceback)))));
}

function actions(job, onChange) {
  const possible = job.state === "dead" ? ["replay", "discard"] : job.state === "ready" ? [...(isLater(job) ? ["promote"] : []), "discard"] : [];
  if (!possible.length) return null;
  if (!may("admin")) return job.state === "dead" && h("p", { class: "hint" }, "Replay and discard need a key with the admin scope.");
  return h("div", { class: "bar" }, possible.map((action) => actionButton(job, action, onChange)));
}

const ACTIONS = {
  replay: ["Replay", "replayed", "replay", "primary"], discard: ["Discard", "discarded", "trash", "danger"], promote: ["Run now", "told to run now", "play", "primary"],
};

function actionButton(job, action, onChange) {
  const [word, past, picture, style] = ACTIONS[action];
  const state = action === "discard" && job.state === "ready" ? { state: "ready" } : {};  // or only a dead one would be
  const button = h("button", { type: "button", class: style }, icon(picture), word);
  fill(button, { on: { click: async () => {
    button.disabled = true;
    try {
      const changed = await call("POST", `/v1/jobs/${job.id}/${action}`, { body: state });
      toast(`Job ${job.id} was ${past}.`, "good");
      if (onChange) onChange(changed);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      toast(error.sentence, "bad");
      button.disabled = false;
    }
  } } });
  return button;
}
