// What people do to jobs: asked first, counted by a dry run, done to no more than that, with a reason that is kept.

import { call, Problem } from "./api.js";
import { openDialog } from "./dialog.js";
import { h, icon, loading, notice, put, toast } from "./dom.js";
import { count, number } from "./format.js";

const AT_ONCE = 1000;
export const WORDS = {
  replay: ["Replay", "replayed"], discard: ["Discard", "discarded"], promote: ["Run", "told to run now"], pause: ["Pause", "paused"], resume: ["Resume", "resumed"],
};
const ICONS = { replay: "replay", discard: "trash", promote: "play" };
const HINTS = {
  replay: "They become ready again, with all their attempts, and run as soon as a worker is free.",
  discard: "They end for good and leave their photos incomplete. The photos themselves stay.",
  promote: "They are due at once, with the attempts that they have left.",
};

/** A button that stays the same element whatever it says, so that whoever has come to it by keyboard stays there. */
export function actButton(action, style, run) {
  const words = h("span", {});
  const root = h("button", { type: "button", class: `${style} ${action === "discard" ? "danger" : ""}`, on: { click: run } }, icon(ICONS[action]), words);
  return { root, say: (text) => { if (words.textContent !== text) words.textContent = text; } };
}

/** Count the jobs of `filter`. Throws Problem. */
export const tryOut = (action, filter) => send(action, filter, { dry_run: true });

const send = (action, filter, more) => call("POST", `/v1/jobs/${action}`, { body: { filter, ...more } });

/** A dry run first; what it counted is what is acted on, and not one more. `onDone` runs after it, or after it failed. */
export async function askAll(action, filter, what, onDone) {
  const [word, past] = WORDS[action];
  const { body, close } = openDialog(`${word} ${what}?`);
  const content = h("div", { class: "section" }, loading("how many there are"));
  body.append(content);
  let trial;
  try {
    trial = await tryOut(action, filter);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    put(content, notice("bad", error.title, h("p", {}, error.message)));
    return;
  }
  const codes = Object.entries(trial.by_error);
  const run = async (note, bar) => {
    let done = 0;
    while (done < trial.matched) {
      const answer = await send(action, filter, { note, limit: Math.min(AT_ONCE, trial.matched - done) });
      done += answer.changed;
      bar.value = done / trial.matched;
      if (!answer.changed) break;
    }
    return done;
  };
  put(content, howMany(trial.matched, past),
    codes.length > 1 && h("ul", { class: "hint" }, codes.slice(0, 6).map(([code, jobs]) => h("li", {}, h("code", {}, code), `: ${number(jobs)}`))),
    question(action, trial.matched, close, run, onDone));
}

/** The same for jobs that are named. `onDone` is given the ids. */
export function askThese(action, ids, onDone) {
  const [word, past] = WORDS[action];
  const { body, close } = openDialog(`${word} ${count(ids.length, "job")}?`);
  const run = async (note, bar) => {
    let done = 0;
    for (const [at, id] of ids.entries()) {
      const answer = await call("POST", `/v1/jobs/${id}/${action}`, { body: { note } }).catch((error) => {
        if (error instanceof Problem && [404, 409].includes(error.status)) return null;  // somebody was faster
        throw error;
      });
      done += answer ? 1 : 0;
      bar.value = (at + 1) / ids.length;
    }
    return done;
  };
  body.append(h("div", { class: "section" }, howMany(ids.length, past), question(action, ids.length, close, run, () => onDone(ids))));
}

const howMany = (jobs, past) => h("p", {}, h("span", { class: "big-number" }, number(jobs)), ` ${jobs === 1 ? "job" : "jobs"} would be ${past}.`);

function question(action, jobs, close, run, onDone) {
  const [word, past] = WORDS[action];
  const note = h("input", { id: "act-note", type: "text", maxlength: "1000", autocomplete: "off" });
  const button = h("button", { type: "submit", class: action === "discard" ? "danger full" : "primary", disabled: jobs === 0 }, `${word} ${count(jobs, "job")}`);
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": word });
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h("form", { class: "section", on: { submit: async (event) => {
    event.preventDefault();
    button.disabled = true;
    bar.hidden = false;
    try {
      const done = await run(note.value.trim() || null, bar);
      close();
      toast(`${count(done, "job")} ${done === 1 ? "was" : "were"} ${past}.`, "good");
      onDone();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problem.textContent = error.sentence;
      button.disabled = false;
      onDone();
    }
  } } }, h("p", { class: "hint" }, HINTS[action]), h("div", { class: "field" }, h("label", { for: "act-note" }, "Why (kept with the jobs)"), note), bar, problem,
  h("div", { class: "dialog-foot" }, h("button", { type: "button", on: { click: close } }, "Cancel"), button));
  requestAnimationFrame(() => note.focus());
  return form;
}
