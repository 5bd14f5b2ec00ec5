// All jobs, in any state: searched, a page at a time, each with its attempts; those that wait can be run now or discarded.

import { actButton, askAll } from "./acting.js";
import { asQuery, get, may, Problem, session } from "./api.js";
import { countDead } from "./app.js";
import { h, loading, notice, put, say, settle } from "./dom.js";
import { ago, time } from "./format.js";
import { errorText, isLater, openJob, showJob, stateBadge } from "./job.js";
import { jobNumber, readFilter, searchForm } from "./jobsearch.js";
import { live } from "./live.js";

export const title = "Jobs";

const PAGE = 25;
const STATES = [["", "Any"], ["ready", "Waiting, due or later"], ["due", "Due"], ["later", "Later"], ["running", "Running"], ["done", "Done, rejected too"], ["rejected", "Rejected their photo"], ["dead", "Dead"], ["discarded", "Discarded"]];
const MAY_BE = { ready: ["discard"], due: ["discard"], later: ["promote", "discard"], dead: ["replay", "discard"] };
const SAYS = { promote: "Run all that match", discard: "Discard all that match", replay: "Replay all that match" };

export function open(outlet, _match, url) {
  const page = { closed: false, filter: readFilter(url.searchParams), turn: 0, pages: 0 };
  if (!STATES.some(([state]) => state === (page.filter.state || ""))) delete page.filter.state;
  page.list = h("div", { class: "rows" });
  page.status = h("p", { class: "hint", role: "status" });
  page.byId = h("div", {});
  page.buttons = Object.fromEntries(Object.entries(SAYS).map(([action, words]) => {
    const button = actButton(action, "", () => askAll(action, page.filter, "all that match", () => { load(page); countDead(); }));
    button.say(words);
    return [action, button.root];
  }));
  put(outlet, h("div", { class: "page" },
    h("div", { class: "page-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Jobs"), h("p", { class: "lead" }, "Each processor's work on each photo, newest first.")),
      h("div", { class: "actions" }, Object.values(page.buttons))),
    searchForm({ filter: page.filter, label: "Search jobs", when: "Ended or made", states: STATES }, (next) => apply(page, next)), page.byId,
    h("section", { class: "card section", "aria-label": "Jobs that match" }, page.status, page.list)));
  show(page);
  const soon = settle(() => refresh(page), 400);
  live.addEventListener("photo", soon);
  live.addEventListener("tick", soon);
  load(page);
  return { close: () => {
    page.closed = true;
    live.removeEventListener("photo", soon);
    live.removeEventListener("tick", soon);
  } };
}

function apply(page, next) {
  page.filter = next;
  history.replaceState(history.state, "", `/jobs${asQuery(next)}`);
  show(page);
  load(page);
}

/** What may be done to all that match, and the job whose number is searched for. */
function show(page) {
  const possible = may("admin") ? MAY_BE[page.filter.state] || [] : [];
  for (const [action, button] of Object.entries(page.buttons)) button.hidden = !possible.includes(action);
  const id = jobNumber(page.filter);
  page.byId.hidden = !id;
  put(page.byId, id && h("button", { type: "button", class: "small", on: { click: () => openJob(id) } }, `Open job ${id}`));
}

/** New ones appear by themselves, unless somebody reads: what is open or has the focus stays as it is. */
function refresh(page) {
  if (page.closed || page.pages !== 1 || page.list.querySelector("details[open]") || page.list.contains(document.activeElement)) return;
  load(page, { quiet: true });
}

async function load(page, { quiet = false } = {}) {
  page.turn += 1;
  page.pages = 0;
  if (!quiet) put(page.list, loading("jobs"));
  await more(page, null, quiet);
}

async function more(page, cursor, quiet) {
  const mine = page.turn;
  try {
    const found = await get("/v1/jobs", { ...page.filter, limit: PAGE, cursor });
    if (page.closed || mine !== page.turn) return;
    const rows = found.jobs.map((job) => row(job));
    const next = found.next_cursor && h("button", { type: "button", class: "small", on: { click: (event) => { event.target.remove(); more(page, found.next_cursor, false); } } }, "Show more");
    page.pages += 1;
    if (cursor) page.list.append(...rows, ...(next ? [next] : []));
    else put(page.list, rows.length ? rows : h("p", { class: "hint" }, "No job matches."), next);
    if (cursor && rows.length) rows[0].querySelector("summary").focus();
    const shown = page.list.querySelectorAll("details.job").length;
    page.status.textContent = shown ? `The ${shown === 1 ? "newest one" : `newest ${shown}`}${next ? "; there are more" : "; these are all"}.` : "";
    if (!quiet && shown === 0) say("No job matches.");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (page.closed || mine !== page.turn) return;
    page.status.textContent = "";
    put(page.list, notice("bad", error.title, h("p", {}, error.status === 403 && session.current.places.length ? `Your key is limited to ${session.current.places.join(", ")}.` : error.message)));
  }
}

function row(job) {
  const body = h("div", { class: "job-body" });
  const when = isLater(job) ? `due ${time(job.run_at)}` : job.state === "ready" ? `due ${ago(job.run_at)}` : ago(job.finished_at || job.started_at || job.created_at);
  const root = h("details", { class: "job" }, h("summary", {}, h("span", { class: "hint" }, `#${job.id}`), h("span", { class: "grow" }, `${job.bucket}/${job.key}`),
    h("span", { class: "hint" }, job.processor), stateBadge(job), h("span", { class: "hint" }, when),
    job.error && job.outcome !== "ok" && h("span", { class: "hint wide" }, errorText(job.error))), body);
  root.addEventListener("toggle", () => {
    if (!root.open || body.firstChild) return;
    const again = () => showJob(body, job.id, again);
    again();
  });
  return root;
}
