// The dead letters: grouped by what went wrong, searched, looked into, and replayed or discarded, counted first.

import { actButton, askAll, askThese, tryOut, WORDS } from "./acting.js";
import { asQuery, get, may, Problem, session } from "./api.js";
import { countDead } from "./app.js";
import { h, icon, loading, notice, put, say, settle } from "./dom.js";
import { ago, count, number, time } from "./format.js";
import { errorText, openJob } from "./job.js";
import { jobNumber, readFilter, searchForm } from "./jobsearch.js";
import { live } from "./live.js";

export const title = "Dead letters";

const PAGE = 25;
const MOST_GROUPS = 100;

export function open(outlet, _match, url) {
  const { state: _state, ...filter } = readFilter(url.searchParams);
  const page = { closed: false, filter, groups: new Map(), picked: new Set(), opened: new Set(), turn: 0 };
  page.total = h("span", {});
  page.list = h("div", { class: "groups" }, loading("the dead letters"));
  makeButtons(page);
  page.audit = h("div", {});
  page.byId = h("div", {});
  offerJob(page);
  put(outlet, h("div", { class: "page" },
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Dead letters"), h("p", { class: "lead" }, "Jobs that gave up. Replay them once the cause is mended, or discard them.")), page.all),
    !may("admin") && notice("plain", "You are looking only.", h("p", {}, "Replaying and discarding need a key with the admin scope.")),
    searchForm({ filter: page.filter, label: "Search dead letters", when: "Gave up" }, (next) => apply(page, next)), page.byId, page.bar, h("section", { class: "section", "aria-label": "Groups" }, h("p", { class: "hint", role: "status" }, page.total), page.list), page.audit));
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

/** Made once: they change their words and not themselves, for somebody may be on them. */
function makeButtons(page) {
  const all = (action) => actButton(action, "", () => askAll(action, page.filter, Object.keys(page.filter).length ? "all that match" : "all dead letters", () => changed(page, [])));
  const picked = (action) => actButton(action, action === "replay" ? "primary small" : "small", () => askThese(action, [...page.picked], (ids) => changed(page, ids)));
  page.allButtons = { replay: all("replay"), discard: all("discard") };
  page.all = h("div", { class: "actions", hidden: true }, Object.values(page.allButtons).map((button) => button.root));
  page.pickedCount = h("span", { class: "strong grow", role: "status" });
  const [replay, discard] = [picked("replay"), picked("discard")];
  replay.say("Replay selected");
  discard.say("Discard selected");
  page.bar = h("div", { class: "bar sticky", hidden: true, role: "region", "aria-label": "Selected jobs" }, page.pickedCount, replay.root, discard.root,
    h("button", { type: "button", class: "quiet small", on: { click: () => pick(page, null) } }, "Select none"));
}

function apply(page, next) {
  page.filter = next;
  offerJob(page);
  history.replaceState(history.state, "", `/dead${asQuery(next)}`);
  page.opened = new Set([...page.groups].filter(([, group]) => group.root.open).map(([key]) => key));
  page.groups.clear();
  pick(page, null);
  load(page);
}

function offerJob(page) {
  const id = jobNumber(page.filter);
  page.byId.hidden = !id;
  put(page.byId, id && h("button", { type: "button", class: "small", on: { click: () => openJob(id) } }, `Open job ${id}`));
}

// --- groups

async function load(page) {
  const mine = ++page.turn;
  try {
    const [found, total] = await Promise.all([
      get("/v1/jobs/groups", { ...page.filter, state: "dead", limit: MOST_GROUPS + 1 }),
      may("admin") ? tryOut("replay", page.filter) : null,
    ]);
    if (page.closed || mine !== page.turn) return;
    showGroups(page, found.groups, total);
  } catch (error) {
    if (page.closed || mine !== page.turn || !(error instanceof Problem)) return;
    page.groups.clear();
    page.total.textContent = "";
    put(page.list, notice("bad", error.title || "The dead letters cannot be shown.", h("p", {}, error.status === 403 && session.current.places.length ? `Your key is limited to ${session.current.places.join(", ")}.` : error.message)));
  }
}

function showGroups(page, found, total) {
  const filtered = Object.keys(page.filter).length > 0;
  const groups = found.slice(0, MOST_GROUPS);
  const more = found.length > groups.length;
  const matched = total ? total.matched : groups.reduce((sum, group) => sum + group.jobs, 0);
  const where = more ? `in more than ${MOST_GROUPS} groups; the ${MOST_GROUPS} largest are shown` : `in ${count(groups.length, "group")}`;
  page.total.textContent = matched ? `${more && !total ? "At least " : ""}${count(matched, "dead letter")}${filtered ? matched === 1 ? " matches" : " match" : ""}, ${where}` : "";
  page.all.hidden = !may("admin") || matched === 0;
  for (const [action, button] of Object.entries(page.allButtons)) button.say(`${WORDS[action][0]} ${filtered ? `these ${number(matched)}` : "all"}`);
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
  roots.forEach((root, at) => { if (page.list.children[at] !== root) page.list.insertBefore(root, page.list.children[at] || null); });
  while (page.list.children.length > roots.length) page.list.lastChild.remove();
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
  const act = (action) => actButton(action, "small", () => askAll(action, filterOf(page, first), `the group ${first.error_code}`, () => changed(page, [])));
  const buttons = { replay: act("replay"), discard: act("discard") };
  const body = h("div", { class: "group-body" }, may("admin") && h("div", { class: "bar" }, Object.values(buttons).map((button) => button.root)), jobs);
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
    for (const [action, button] of Object.entries(buttons)) button.say(`${WORDS[action][0]} ${number(group.jobs)}`);
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

const inspect = (page, job) => openJob(job.id, { heading: `Job ${job.id}: ${job.processor}`, onChange: () => changed(page, [job.id]) });

// --- acting

function pick(page, id, on = false) {
  if (id === null) page.picked.clear();
  else if (on) page.picked.add(id);
  else page.picked.delete(id);
  for (const box of page.list.querySelectorAll("input[data-job]")) box.checked = page.picked.has(Number(box.dataset.job));
  page.bar.hidden = page.picked.size === 0;
  page.pickedCount.textContent = `${count(page.picked.size, "job")} selected`;
}

function changed(page, ids) {
  for (const id of ids) page.picked.delete(id);
  if (!ids.length) page.picked.clear();
  pick(page, 0);
  say("The list is read again.");
  load(page).then(() => keepFocus(page));
  countDead();
  if (may("admin")) showAudit(page);
}

/** What had the focus may be gone with what was done: then it goes to the top and is not lost. */
function keepFocus(page) {
  if (!page.closed && document.activeElement === document.body) document.querySelector("h1").focus();
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
