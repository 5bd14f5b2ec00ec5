// The dead letters: grouped by what went wrong, searched, looked into, and replayed or discarded, counted first.

import { asQuery, call, get, may, Problem, session } from "./api.js";
import { countDead } from "./app.js";
import { openDialog } from "./dialog.js";
import { h, icon, loading, notice, put, say, settle, toast } from "./dom.js";
import { ago, count, number, time } from "./format.js";
import { errorText, showJob } from "./job.js";
import { openJob } from "./jobs.js";
import { live } from "./live.js";

export const title = "Dead letters";

const PAGE = 25;
const AT_ONCE = 1000;
const FIELDS = ["search", "processor", "error_code", "bucket", "key_prefix", "photo_id", "since", "until"];
const SPANS = [["", "Any time"], ["1", "Last hour"], ["24", "Last day"], ["168", "Last week"], ["between", "Between …"]];
const WORDS = { replay: ["Replay", "replayed"], discard: ["Discard", "discarded"], pause: ["Pause", "paused"], resume: ["Resume", "resumed"] };

export function open(outlet, _match, url) {
  const page = { closed: false, filter: readFilter(url.searchParams), groups: new Map(), picked: new Set(), opened: new Set(), turn: 0 };
  page.total = h("span", {});
  page.list = h("div", { class: "groups" }, loading("the dead letters"));
  page.all = h("div", { class: "actions" });
  page.bar = h("div", { class: "bar sticky", hidden: true, role: "region", "aria-label": "Selected jobs" });
  page.audit = h("div", {});
  page.byId = h("div", { hidden: true });
  put(outlet, h("div", { class: "page" },
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Dead letters"), h("p", { class: "lead" }, "Jobs that gave up. Replay them once the cause is mended, or discard them.")), page.all),
    !may("admin") && notice("plain", "You are looking only.", h("p", {}, "Replaying and discarding need a key with the admin scope.")),
    searchForm(page), page.byId, page.bar, h("section", { class: "section", "aria-label": "Groups" }, h("p", { class: "hint", role: "status" }, page.total), page.list), page.audit));
  const soon = settle(() => load(page), 400);
  const onEvent = ({ detail }) => { if (detail.type === "job.dead" || detail.type === "photo.deleted") soon(); };
  live.addEventListener("photo", onEvent);
  live.addEventListener("tick", soon);
  load(page);
  if (may("admin")) showAudit(page);
  return { close: () => {
    page.closed = true;
    live.removeEventListener("photo", onEvent);
    live.removeEventListener("tick", soon);
  } };
}

// --- what is asked for

function readFilter(query) {
  return Object.fromEntries(FIELDS.map((name) => [name, query.get(name)]).filter(([, value]) => value));
}

function searchForm(page) {
  const { filter } = page;
  const inputs = {
    search: h("input", { id: "d-search", type: "search", value: filter.search || "", placeholder: "Key, error or job number", autocomplete: "off", maxlength: "200" }),
    processor: h("input", { id: "d-processor", type: "text", value: filter.processor || "", placeholder: "Any", autocomplete: "off", maxlength: "100" }),
    error_code: h("input", { id: "d-code", type: "text", value: filter.error_code || "", placeholder: "Any", autocomplete: "off", maxlength: "100" }),
    place: h("input", { id: "d-place", type: "text", value: [filter.bucket, filter.key_prefix].filter(Boolean).join("/"), placeholder: "photos/2026/", autocomplete: "off" }),
    span: h("select", { id: "d-span" }, SPANS.map(([value, name]) => h("option", { value, selected: value === ((filter.since || filter.until) ? "between" : "") }, name))),
    since: h("input", { id: "d-since", type: "datetime-local", value: localInput(filter.since) }),
    until: h("input", { id: "d-until", type: "datetime-local", value: localInput(filter.until) }),
  };
  const field = (id, label, input) => h("div", { class: `field ${id}` }, h("label", { for: id }, label), input);
  const between = [field("d-since", "From", inputs.since), field("d-until", "Until", inputs.until)];
  const show = () => between.forEach((part) => { part.hidden = inputs.span.value !== "between"; });
  const change = () => { show(); apply(page, inputs); };
  show();
  return h("form", { class: "filters", role: "search", "aria-label": "Search dead letters", on: { submit: (event) => { event.preventDefault(); change(); }, input: settle(change, 350) } },
    field("d-search", "Search", inputs.search), field("d-processor", "Processor", inputs.processor), field("d-code", "Error code", inputs.error_code),
    field("d-place", "Bucket and prefix", inputs.place), field("d-span", "Gave up", inputs.span), between,
    h("button", { type: "button", class: "quiet", on: { click: () => { for (const input of Object.values(inputs)) input.value = ""; page.filter = {}; change(); } } }, "Clear"));
}

function apply(page, inputs) {
  const [bucket, ...rest] = inputs.place.value.trim().split("/");
  const span = inputs.span.value;
  const hours = Number(span);
  const wanted = {
    search: inputs.search.value.trim(), processor: inputs.processor.value.trim(), error_code: inputs.error_code.value.trim(), bucket, key_prefix: rest.join("/"),
    photo_id: page.filter.photo_id,
    since: span === "between" ? utcInput(inputs.since.value) : hours ? new Date(Date.now() - hours * 3600e3).toISOString() : "",
    until: span === "between" ? utcInput(inputs.until.value) : "",
  };
  const next = Object.fromEntries(FIELDS.map((name) => [name, wanted[name]]).filter(([, value]) => value));
  if (JSON.stringify(next) === JSON.stringify(page.filter)) return;
  page.filter = next;
  const id = /^#?(\d{1,18})$/.exec(next.search || "");
  page.byId.hidden = !id;
  put(page.byId, id && h("button", { type: "button", class: "small", on: { click: () => openJob(id[1]) } }, `Open job ${id[1]}`));
  history.replaceState(history.state, "", `/dead${asQuery(next)}`);
  page.opened = new Set([...page.groups].filter(([, group]) => group.root.open).map(([key]) => key));
  page.groups.clear();
  pick(page, null);
  load(page);
}

function localInput(moment) {
  if (!moment) return "";
  const date = new Date(moment);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

const utcInput = (value) => (value ? new Date(value).toISOString() : "");

// --- groups

async function load(page) {
  const mine = ++page.turn;
  try {
    const [found, total] = await Promise.all([
      get("/v1/jobs/groups", { ...page.filter, state: "dead", limit: 100 }),
      may("admin") ? act("replay", page.filter, { dry_run: true }) : null,
    ]);
    if (page.closed || mine !== page.turn) return;
    const matched = total ? total.matched : found.groups.reduce((sum, group) => sum + group.jobs, 0);
    showGroups(page, found.groups, matched);
  } catch (error) {
    if (page.closed || mine !== page.turn || !(error instanceof Problem)) return;
    page.groups.clear();
    page.total.textContent = "";
    put(page.list, notice("bad", error.title || "The dead letters cannot be shown.", h("p", {}, error.status === 403 && session.current.places.length ? `Your key is limited to ${session.current.places.join(", ")}.` : error.message)));
  }
}

function showGroups(page, groups, matched) {
  const filtered = Object.keys(page.filter).length > 0;
  page.total.textContent = matched ? `${count(matched, "dead letter")} in ${count(groups.length, "group")}${filtered ? " match" : ""}` : "";
  put(page.all, may("admin") && matched > 0 && [
    h("button", { type: "button", on: { click: () => ask(page, "replay", page.filter, filtered ? "all that match" : "all dead letters") } }, icon("replay"), filtered ? `Replay these ${number(matched)}` : "Replay all"),
    h("button", { type: "button", class: "danger", on: { click: () => ask(page, "discard", page.filter, filtered ? "all that match" : "all dead letters") } }, icon("trash"), filtered ? `Discard these ${number(matched)}` : "Discard all")]);
  if (!groups.length) {
    page.groups.clear();
    put(page.list, h("div", { class: "empty" }, icon(filtered ? "search" : "check"), h("h2", {}, filtered ? "No dead letter matches" : "No dead letters"), h("p", {}, filtered ? "Change the search, or clear it." : "Every job has run, or still may. This page fills by itself when one gives up.")));
    return;
  }
  const fresh = new Map(groups.map((group) => [keyOf(group), page.groups.get(keyOf(group)) || makeGroup(page, group)]));
  groups.forEach((group) => fresh.get(keyOf(group)).update(group));
  page.groups = fresh;
  for (const key of page.opened) if (fresh.has(key)) fresh.get(key).root.open = true;
  page.opened.clear();
  const roots = [...fresh.values()].map((item) => item.root);
  if (roots.length !== page.list.children.length || roots.some((root, at) => page.list.children[at] !== root)) put(page.list, roots);
}

const keyOf = (group) => [group.processor, group.error_code, group.error_group].join("\n");

function filterOf(page, group) {
  return { ...page.filter, processor: group.processor, error_code: group.error_code, ...(group.error_group ? { error_group: group.error_group } : {}) };
}

function makeGroup(page, first) {
  const message = h("p", { class: "group-message" });
  const when = h("p", { class: "group-when" });
  const much = h("span", {});
  const jobs = h("div", {});
  const buttons = h("div", { class: "bar" });
  const body = h("div", { class: "group-body" }, may("admin") && buttons, jobs);
  const root = h("details", { class: "card group" }, h("summary", {},
    h("p", { class: "group-title" }, h("span", {}, first.processor), h("code", {}, first.error_code)), message, when,
    h("p", { class: "group-count" }, much, h("small", {}, "jobs"))), body);
  let shown = null;
  root.addEventListener("toggle", () => { if (root.open && shown === null) list(); });

  function list() {
    shown = first.jobs;
    put(jobs, loading("its jobs"));
    more(page, jobs, filterOf(page, first), null);
  }

  function update(group) {
    first = group;
    message.textContent = group.message || "";
    when.textContent = `${group.first_at === group.last_at ? "" : `First ${ago(group.first_at)}, last `}${ago(group.last_at)}`;
    when.title = time(group.last_at);
    much.textContent = number(group.jobs);
    put(buttons, h("button", { type: "button", class: "small", on: { click: () => ask(page, "replay", filterOf(page, first), `the group ${first.error_code}`) } }, icon("replay"), `Replay ${number(group.jobs)}`),
      h("button", { type: "button", class: "small danger", on: { click: () => ask(page, "discard", filterOf(page, first), `the group ${first.error_code}`) } }, icon("trash"), `Discard ${number(group.jobs)}`));
    if (shown !== null && shown !== group.jobs && !jobs.contains(document.activeElement)) {
      if (root.open) list();
      else shown = null;
    }
  }

  return { root, update };
}

async function more(page, jobs, filter, cursor) {
  try {
    const found = await get("/v1/jobs", { ...filter, state: "dead", limit: PAGE, cursor });
    if (page.closed) return;
    const rows = found.jobs.map((job) => jobPick(page, job));
    const next = found.next_cursor && h("button", { type: "button", class: "small", on: { click: (event) => { event.target.remove(); more(page, jobs, filter, found.next_cursor); } } }, "Show more");
    if (cursor) jobs.append(...rows, ...(next ? [next] : []));
    else put(jobs, rows, next);
    if (cursor && rows.length) rows[0].querySelector("button, input").focus();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    put(jobs, notice("bad", error.title, h("p", {}, error.message)));
  }
}

function jobPick(page, job) {
  const box = may("admin") && h("input", { type: "checkbox", checked: page.picked.has(job.id), "aria-label": `Select job ${job.id} of ${job.key}`, "data-job": job.id,
    on: { change: () => pick(page, job.id, box.checked) } });
  return h("div", { class: "pick" }, h("label", {}, box || ""),
    h("p", { class: "pick-key" }, h("a", { href: `/photos/${job.photo_id}` }, `${job.bucket}/${job.key}`)),
    h("button", { type: "button", class: "small", on: { click: () => inspect(page, job) } }, "Inspect", h("span", { class: "unseen" }, ` job ${job.id}`)),
    h("p", { class: "pick-more" }, `${errorText(job.error)} · ${count(job.attempt, "attempt")} · ${ago(job.finished_at)}`));
}

function inspect(page, job) {
  const { body, close } = openDialog(`Job ${job.id}: ${job.processor}`, { wide: true });
  const content = h("div", { class: "section" });
  body.append(h("p", {}, h("a", { href: `/photos/${job.photo_id}`, on: { click: close } }, `${job.bucket}/${job.key}`)), content);
  showJob(content, job.id, () => { close(); changed(page, [job.id]); });
}

// --- acting

function pick(page, id, on = false) {
  if (id === null) page.picked.clear();
  else if (on) page.picked.add(id);
  else page.picked.delete(id);
  for (const box of page.list.querySelectorAll("input[data-job]")) box.checked = page.picked.has(Number(box.dataset.job));
  page.bar.hidden = page.picked.size === 0;
  if (!page.picked.size) return;
  const act = (action) => askPicked(page, action, [...page.picked]);
  put(page.bar, h("span", { class: "strong grow", role: "status" }, `${count(page.picked.size, "job")} selected`),
    h("button", { type: "button", class: "primary small", on: { click: () => act("replay") } }, icon("replay"), "Replay selected"),
    h("button", { type: "button", class: "danger small", on: { click: () => act("discard") } }, icon("trash"), "Discard selected"),
    h("button", { type: "button", class: "quiet small", on: { click: () => pick(page, null) } }, "Select none"));
}

const act = (action, filter, more) => call("POST", `/v1/jobs/${action}`, { body: { filter, ...more } });

/** A dry run first; what it counted is what is acted on, and not one more. */
async function ask(page, action, filter, what) {
  const [word, past] = WORDS[action];
  const { body, close } = openDialog(`${word} ${what}?`);
  const content = h("div", { class: "section" }, loading("how many there are"));
  body.append(content);
  let trial;
  try {
    trial = await act(action, filter, { dry_run: true });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    put(content, notice("bad", error.title, h("p", {}, error.message)));
    return;
  }
  const codes = Object.entries(trial.by_error);
  const run = async (note, bar) => {
    let done = 0;
    while (done < trial.matched) {
      const answer = await act(action, filter, { note, limit: Math.min(AT_ONCE, trial.matched - done) });
      done += answer.changed;
      bar.value = done / trial.matched;
      if (!answer.changed) break;
    }
    return done;
  };
  put(content, h("p", {}, h("span", { class: "big-number" }, number(trial.matched)), ` ${trial.matched === 1 ? "job" : "jobs"} would be ${past}.`),
    codes.length > 1 && h("ul", { class: "hint" }, codes.slice(0, 6).map(([code, jobs]) => h("li", {}, h("code", {}, code), `: ${number(jobs)}`))),
    question(page, action, trial.matched, close, run));
}

function askPicked(page, action, ids) {
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
  body.append(h("div", { class: "section" }, h("p", {}, h("span", { class: "big-number" }, number(ids.length)), ` ${ids.length === 1 ? "job" : "jobs"} would be ${past}.`),
    question(page, action, ids.length, close, run, ids)));
}

function question(page, action, jobs, close, run, ids = []) {
  const [word, past] = WORDS[action];
  const hint = action === "replay" ? "They become ready again, with all their attempts, and run as soon as a worker is free." : "They end for good and leave their photos incomplete. The photos themselves stay.";
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
      changed(page, ids);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problem.textContent = error.sentence;
      button.disabled = false;
      changed(page, []);
    }
  } } }, h("p", { class: "hint" }, hint), h("div", { class: "field" }, h("label", { for: "act-note" }, "Why (kept with the jobs)"), note), bar, problem,
  h("div", { class: "dialog-foot" }, h("button", { type: "button", on: { click: close } }, "Cancel"), button));
  requestAnimationFrame(() => note.focus());
  return form;
}

function changed(page, ids) {
  for (const id of ids) page.picked.delete(id);
  if (!ids.length) page.picked.clear();
  pick(page, 0);
  say("The list is read again.");
  load(page);
  countDead();
  if (may("admin")) showAudit(page);
}

// --- who did what

async function showAudit(page) {
  const found = await get("/v1/actions", { limit: 20 }).catch((error) => {
    if (error instanceof Problem) return null;
    throw error;
  });
  if (page.closed || !found) return;
  const list = h("ul", { class: "rows", role: "list" }, found.actions.map(auditRow));
  let cursor = found.next_cursor;
  const next = h("button", { type: "button", class: "small", hidden: !cursor, on: { click: async () => {
    const more = await get("/v1/actions", { limit: 20, cursor });
    cursor = more.next_cursor;
    next.hidden = !cursor;
    list.append(...more.actions.map(auditRow));
  } } }, "Show more");
  put(page.audit, h("section", { class: "card", "aria-label": "What was done" }, h("h2", {}, "What was done"),
    found.actions.length ? [list, next] : h("p", { class: "hint" }, "Nothing was replayed, discarded, paused or resumed yet.")));
}

function auditRow(item) {
  const what = item.processor && !item.jobs ? item.processor : count(item.jobs, "job");
  const which = item.filter && Object.keys(item.filter).length ? Object.entries(item.filter).map(([name, value]) => `${name} ${value}`).join(", ") : item.filter ? "all" : (item.job_ids || []).map((id) => `#${id}`).join(" ");
  return h("li", { class: "row" }, h("div", { class: "grow" }, h("p", {}, h("span", { class: "strong" }, `${(WORDS[item.action] || [item.action, item.action])[0]} ${what}`), which && h("span", { class: "hint" }, ` ${which}`)),
    h("p", { class: "hint" }, `${item.actor}${item.note ? `: ${item.note}` : ""}`)), h("time", { class: "hint", datetime: item.at, title: time(item.at) }, ago(item.at)));
}
