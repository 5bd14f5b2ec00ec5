// Lists of jobs in any state, in a dialog: what is behind the numbers of the queue.

import { get, Problem } from "./api.js";
import { openDialog } from "./dialog.js";
import { h, loading, notice, put, settle } from "./dom.js";
import { ago, time } from "./format.js";
import { errorText, showJob, stateBadge } from "./job.js";

const PAGE = 25;

/** Show the jobs that match `filter`, as GET /v1/jobs takes it. */
export function openJobs(heading, filter) {
  const list = h("div", { class: "rows" });
  const input = h("input", { id: "jobs-search", type: "search", maxlength: "200", autocomplete: "off", placeholder: "Part of a key or an error" });
  const { body } = openDialog(heading, { wide: true });
  let turn = 0;
  const restart = () => { turn += 1; more(null); };
  const more = async (cursor) => {
    const mine = turn;
    if (!cursor) put(list, loading("jobs"));
    try {
      const found = await get("/v1/jobs", { ...filter, search: input.value.trim(), limit: PAGE, cursor });
      if (mine !== turn) return;
      const rows = found.jobs.map((job) => row(job));
      const next = found.next_cursor && h("button", { type: "button", class: "small", on: { click: (event) => { event.target.remove(); more(found.next_cursor); } } }, "Show more");
      if (cursor) list.append(...rows, ...(next ? [next] : []));
      else put(list, rows.length ? rows : h("p", { class: "hint" }, "There is none."), next);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      put(list, notice("bad", error.title, h("p", {}, error.message)));
    }
  };
  body.append(h("div", { class: "field" }, h("label", { for: "jobs-search" }, "Search"), input), list);
  input.addEventListener("input", settle(restart, 350));
  restart();
}

/** Show one job by its id. */
export function openJob(id) {
  const { body } = openDialog(`Job ${id}`, { wide: true });
  const content = h("div", { class: "section" });
  body.append(content);
  showJob(content, id, () => showJob(content, id, null));
}

function row(job) {
  const body = h("div", { class: "job-body" });
  const when = job.state === "ready" ? `due ${new Date(job.run_at) > new Date() ? time(job.run_at) : ago(job.run_at)}` : ago(job.finished_at || job.started_at || job.created_at);
  const root = h("details", { class: "job" }, h("summary", {}, h("span", { class: "hint" }, `#${job.id}`), h("span", { class: "grow" }, `${job.bucket}/${job.key}`), stateBadge(job), h("span", { class: "hint" }, when),
    job.error && job.state !== "done" && h("span", { class: "hint wide" }, errorText(job.error))), body);
  root.addEventListener("toggle", () => {
    if (!root.open || body.firstChild) return;
    const content = h("div", { class: "section" });
    put(body, h("a", { href: `/photos/${job.photo_id}`, on: { click: () => root.closest("dialog").close() } }, "Show the photo"), content);
    showJob(content, job.id, () => showJob(content, job.id, null));
  });
  return root;
}
