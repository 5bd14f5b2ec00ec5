// Why a photo is not as one expects it, in the gateway's own sentences; and a field to ask after one that never came.

import { get, Problem, session } from "./api.js";
import { openDialog } from "./dialog.js";
import { h, icon, loading, notice, put } from "./dom.js";
import { time } from "./format.js";

const BAD = new Set(["rejected", "dead", "lost"]);
const CALM = new Set(["waiting", "running", "ready", "superseded"]);
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An answer of GET /v1/explain in a box. What is done is left out where something is not. */
export function verdict(told) {
  const open = told.findings.filter((item) => item.verdict !== "ready");
  const tone = BAD.has(told.verdict) ? "bad" : CALM.has(told.verdict) ? "plain" : "warm";
  return notice(tone, told.summary, h("ul", { class: "findings" }, (open.length ? open : told.findings).map((item) =>
    h("li", {}, h("p", {}, local(item.said)), item.do && h("p", { class: "hint" }, item.do)))));
}

/** Moments in brackets as the reader's clock has them. */
function local(text) {
  return text.replace(/\((\d{4}-\d\d-\d\dT[\d:]+Z)\)/g, (_, moment) => `(${time(moment)})`);
}

/** Ask after a photo by its bucket and key, or its id; `given` stands in the field already. */
export function openSearch(given = "") {
  const { body, close } = openDialog("Where is my photo?");
  const input = h("input", { id: "where", type: "text", required: true, maxlength: "1100", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    value: given, placeholder: `${session.current.default_bucket}/2026/summer/beach.jpg`, "aria-describedby": "where-help" });
  const answer = h("div", { class: "section", role: "status" });
  let turn = 0;
  const ask = async (event) => {
    event.preventDefault();
    const mine = ++turn;
    const query = read(input.value);
    if (!query) return void put(answer, notice("plain", "Name the bucket too.", h("p", {}, `The bucket, a slash, then the key: ${input.placeholder}`)));
    put(answer, loading("the answer"));
    const found = await look(query, close);
    if (mine === turn) put(answer, found);
  };
  body.append(
    h("form", { class: "where", on: { submit: ask } }, h("div", { class: "field" }, h("label", { for: "where" }, "Bucket and key"), input),
      h("button", { type: "submit", class: "primary" }, icon("search"), "Look")),
    h("p", { class: "hint", id: "where-help" }, "Exactly as it was sent, capitals and spaces too. A photo's id does as well."), answer);
  input.focus();
}

/** What the field holds as a query: {bucket, key} or {photo_id}; null where it names no bucket. */
function read(text) {
  const name = text.trim().replace(/^(s3:\/\/|\/)/, "");
  if (ID.test(name)) return { photo_id: name };
  const [bucket, ...rest] = name.split("/");
  const key = rest.join("/");
  return bucket && key ? { bucket, key } : null;
}

async function look(query, close) {
  try {
    const told = await get("/v1/explain", query);
    const link = told.photo_id && told.verdict !== "deleted" && h("a", { class: "button", href: `/photos/${told.photo_id}`, on: { click: close } }, "Show the photo");
    return [verdict(told), link && h("div", { class: "actions" }, link)];
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return refusal(error);
  }
}

function refusal(problem) {
  const places = session.current ? session.current.places : [];
  if (problem.status === 404 && places.length) return notice("plain", "You see no such photo.", h("p", {}, `Your key is limited to ${places.join(", ")}; what lies elsewhere is not told.`));
  if (problem.status === 404) return notice("plain", problem.title, h("p", {}, "No photo ever had this id. Ask by bucket and key."));
  if (problem.status === 422) return notice("plain", "No bucket or key can be named so.", h("p", {}, "A bucket's name has at most 63 characters."));
  return notice("bad", problem.title, h("p", {}, problem.message));
}
