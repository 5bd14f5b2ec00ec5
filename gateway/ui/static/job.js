// A job as people read it: what became of it, and every attempt with its error.

import { call, get, may, Problem } from "./api.js";
import { copier, fill, h, icon, loading, notice, put, toast } from "./dom.js";
import { ago, count, duration, time, workerName } from "./format.js";

const OUTCOMES = {
  ok: "Done", rejected: "Rejected the photo", superseded: "Superseded", retry: "Failed, tried again", snoozed: "Waited for a dependency",
  dead: "Gave up", crashed: "The decoder died", released: "Handed back", expired: "Its worker fell silent",
};

/** One word or two for where a job stands. */
export function stateWord(job) {
  if (job.state === "done") return job.outcome === "ok" ? "Done" : OUTCOMES[job.outcome] || job.outcome;
  if (job.state === "ready") return job.error ? "Waits to be tried again" : "Waiting";
  return { running: "Running", dead: "Dead", discarded: "Discarded" }[job.state] || job.state;
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

export function jobDetail(job, onChange) {
  const pair = (name, ...value) => [h("dt", {}, name), h("dd", {}, value)];
  const error = job.error && (job.state === "dead" || job.state === "ready" || job.outcome === "rejected") ? job.error : null;
  return [
    error && errorBox(error),
    job.state === "dead" && actions(job, onChange),
    h("dl", { class: "pairs" },
      pair("Attempts", `${job.attempt} of ${job.max_attempts}`, job.crashes ? `, ${count(job.crashes, "crash", "crashes")}` : "", job.expiries ? `, ${count(job.expiries, "silent worker")}` : ""),
      pair("Made", h("time", { datetime: job.created_at }, time(job.created_at))),
      job.state === "ready" && pair("Due", h("time", { datetime: job.run_at }, time(job.run_at))),
      job.finished_at && pair("Ended", h("time", { datetime: job.finished_at }, time(job.finished_at))),
      job.worker && pair("Worker", h("span", { class: "keyline" }, h("code", {}, job.worker), copier(job.worker, "the worker's id"))),
      pair("In the logs", h("span", { class: "keyline" }, h("code", {}, `job_id=${job.id}`), copier(`job_id=${job.id}`, "the words to search logs for")),
        h("span", { class: "keyline" }, h("code", {}, `photo_id=${job.photo_id}`), copier(`photo_id=${job.photo_id}`, "the photo's id for logs")))),
    attemptList(job.attempts),
    job.actions.length > 0 && h("ul", { class: "rows" }, job.actions.map((item) => h("li", { class: "hint" },
      `${{ replay: "Replayed", discard: "Discarded" }[item.action] || item.action} by ${item.actor}, ${ago(item.at)}${item.note ? `: ${item.note}` : ""}`))),
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
  if (!may("admin")) return h("p", { class: "hint" }, "Replay and discard need a key with the admin scope.");
  const act = async (action, word, button) => {
    button.disabled = true;
    try {
      const changed = await call("POST", `/v1/jobs/${job.id}/${action}`, { body: {} });
      toast(`Job ${job.id} was ${word}.`, "good");
      if (onChange) onChange(changed);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      toast(error.sentence, "bad");
      button.disabled = false;
    }
  };
  const replay = h("button", { type: "button", class: "primary" }, icon("replay"), "Replay");
  const discard = h("button", { type: "button", class: "danger" }, icon("trash"), "Discard");
  fill(replay, { on: { click: () => act("replay", "replayed", replay) } });
  fill(discard, { on: { click: () => act("discard", "discarded", discard) } });
  return h("div", { class: "bar" }, replay, discard);
}
