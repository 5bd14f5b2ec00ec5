// What is asked of jobs: the form that the lists of jobs and of dead letters share, and how an address keeps it.

import { h, settle } from "./dom.js";

const KEPT = ["photo_id", "worker", "error_group"];  // come by address alone
const FIELDS = ["state", "search", "processor", "error_code", "bucket", "key_prefix", ...KEPT, "since", "until"];
const SPANS = [["", "Any time"], ["1", "Last hour"], ["24", "Last day"], ["168", "Last week"], ["between", "Between …"]];

/** The filter that an address holds, as GET /v1/jobs takes it. What is no time is left out. */
export function readFilter(query) {
  const given = FIELDS.map((name) => [name, query.get(name)]).filter(([, value]) => value);
  return Object.fromEntries(given.filter(([name, value]) => !["since", "until"].includes(name) || !Number.isNaN(Date.parse(value))));
}

/** A form that begins with `filter` and tells `onChange` of another one. `states`: [[value, name], ...] to choose from. */
export function searchForm({ filter, label, when, states = null }, onChange) {
  let known = filter;
  let kept = Object.fromEntries(KEPT.filter((name) => filter[name]).map((name) => [name, filter[name]]));
  const text = (id, value, placeholder, maxlength = "100", type = "text") => h("input", { id, type, value: value || "", placeholder, autocomplete: "off", maxlength });
  const choice = (id, options, value) => h("select", { id }, options.map(([option, name]) => h("option", { value: option, selected: option === value }, name)));
  const inputs = {
    search: text("d-search", filter.search, "Key, error or job number", "200", "search"),
    ...(states ? { state: choice("d-state", states, filter.state || "") } : {}),
    processor: text("d-processor", filter.processor, "Any"),
    error_code: text("d-code", filter.error_code, "Any"),
    place: text("d-place", [filter.bucket, filter.key_prefix].filter(Boolean).join("/"), "photos/2026/", "1088"),
    span: choice("d-span", SPANS, filter.since || filter.until ? "between" : ""),
    since: h("input", { id: "d-since", type: "datetime-local", value: localInput(filter.since) }),
    until: h("input", { id: "d-until", type: "datetime-local", value: localInput(filter.until) }),
  };
  const field = (name, input) => h("div", { class: `field ${input.id}` }, h("label", { for: input.id }, name), input);
  const between = [field("From", inputs.since), field("Until", inputs.until)];
  const only = h("p", { class: "hint" });

  function change() {
    between.forEach((part) => { part.hidden = inputs.span.value !== "between"; });
    only.textContent = Object.entries(kept).map(([name, value]) => `Only of ${{ photo_id: "photo", worker: "worker", error_group: "group" }[name]} ${value}`).join(". ");
    only.hidden = !only.textContent;
    const next = read(inputs, kept);
    if (JSON.stringify(next) === JSON.stringify(known)) return;
    known = next;
    onChange(next);
  }

  function clear() {
    for (const input of Object.values(inputs)) input.value = "";
    kept = {};
    change();
  }

  const form = h("form", { class: "filters", role: "search", "aria-label": label, on: { submit: (event) => { event.preventDefault(); change(); }, input: settle(change, 350) } },
    field("Search", inputs.search), states && field("State", inputs.state), field("Processor", inputs.processor), field("Error code", inputs.error_code),
    field("Bucket and prefix", inputs.place), field(when, inputs.span), between, only, h("button", { type: "button", class: "quiet", on: { click: clear } }, "Clear"));
  known = read(inputs, kept);
  change();
  return form;
}

/** The number of a job, where that may be what is searched for. */
export function jobNumber(filter) {
  const match = /^#?(\d{1,18})$/.exec(filter.search || "");
  return match && match[1];
}

function read(inputs, kept) {
  const [bucket, ...rest] = inputs.place.value.trim().split("/");
  const span = inputs.span.value;
  const hours = Number(span);
  const wanted = {
    state: inputs.state ? inputs.state.value : "", search: inputs.search.value.trim(), processor: inputs.processor.value.trim(),
    error_code: inputs.error_code.value.trim(), bucket, key_prefix: rest.join("/"), ...kept,
    since: span === "between" ? utcInput(inputs.since.value) : hours ? new Date(Date.now() - hours * 3600e3).toISOString() : "",
    until: span === "between" ? utcInput(inputs.until.value) : "",
  };
  return Object.fromEntries(FIELDS.map((name) => [name, wanted[name]]).filter(([, value]) => value));
}

function localInput(moment) {
  if (!moment) return "";
  const date = new Date(moment);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

const utcInput = (value) => (value ? new Date(value).toISOString() : "");
