// Small lines over time, drawn as SVG, that can be read with a pointer and without eyes.

import { h, s } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 600;
const HEIGHT = 64;

/**
 * A chart. `values`: one number or null a step; `marks`: how much went wrong in each step, drawn as bars; `say(value)`
 * and `sayMark(mark)` put them in words; `from`, `stepSeconds`: when the steps are. `update` draws others.
 */
export function makeChart(heading, { say, sayMark = null }) {
  const now = h("strong", {});
  const head = h("p", { class: "chart-head" }, h("span", {}, heading), now);
  const picture = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const begin = h("span", {});
  const root = h("div", {}, head, picture, h("p", { class: "chart-ends", "aria-hidden": "true" }, begin, h("span", {}, "now")));
  let data = null;

  function update(given) {
    data = given;
    const { values, marks = [], from, stepSeconds } = given;
    const top = Math.max(...values.map((value) => value || 0), 1e-9) * 1.08;
    const x = (at) => (values.length > 1 ? (at * WIDTH) / (values.length - 1) : 0);
    const y = (value) => HEIGHT - 2 - (value / top) * (HEIGHT - 6);
    const parts = runs(values);
    const line = parts.map((part) => `M${part.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}${part.length === 1 ? "h0.1" : ""}`).join("");
    const area = parts.map((part) => `M${x(part[0][0]).toFixed(1)} ${HEIGHT}L${part.map(([at, value]) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("L")}L${x(part[part.length - 1][0]).toFixed(1)} ${HEIGHT}z`).join("");
    const most = Math.max(...marks, 1);
    const wide = Math.max(2, WIDTH / values.length - 1);
    picture.replaceChildren(s("path", { class: "base", d: `M0 ${HEIGHT - 1}H${WIDTH}` }), s("path", { class: "area", d: area }), s("path", { class: "line", d: line }),
      ...marks.flatMap((mark, at) => (mark ? [s("rect", { class: "bad", x: x(at) - wide / 2, width: wide, y: HEIGHT - 6 - (mark / most) * 18, height: 6 + (mark / most) * 18 })] : [])));
    begin.textContent = clock(from);
    tell(null);
    const known = values.filter((value) => value !== null);
    const largest = known.length ? say(Math.max(...known)) : "nothing";
    const wrong = sayMark ? `, ${sayMark(marks.reduce((sum, mark) => sum + mark, 0))}` : "";
    picture.setAttribute("aria-label", `${heading} over ${Math.round((values.length * stepSeconds) / 60)} minutes: now ${now.textContent}, at most ${largest}${wrong}`);
  }

  function tell(at) {
    const { values, marks = [], from, stepSeconds } = data;
    const last = at === null ? lastKnown(values) : at;
    const when = at === null ? "" : `${clock(new Date(from).getTime() + at * stepSeconds * 1000)}  `;
    const value = values[last];
    const bad = at !== null && marks[last] && sayMark ? `, ${sayMark(marks[last])}` : "";
    now.textContent = `${when}${value === null || value === undefined ? "–" : say(value)}${bad}`;
  }

  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const at = Math.round(((event.clientX - box.left) / box.width) * (data.values.length - 1));
    const inside = Math.min(data.values.length - 1, Math.max(0, at));
    picture.querySelector(".cursor")?.remove();
    picture.append(s("path", { class: "cursor", d: `M${((inside * WIDTH) / (data.values.length - 1)).toFixed(1)} 0V${HEIGHT}` }));
    tell(inside);
  });
  picture.addEventListener("pointerleave", () => {
    picture.querySelector(".cursor")?.remove();
    tell(null);
  });
  return { root, update };
}

/** Neighbouring values that are known, as [[step, value], ...]. */
function runs(values) {
  const found = [];
  values.forEach((value, at) => {
    if (value === null || value === undefined) return;
    const last = found[found.length - 1];
    if (last && last[last.length - 1][0] === at - 1) last.push([at, value]);
    else found.push([[at, value]]);
  });
  return found;
}

/** The last step is under way: the one before tells more, where there is one. */
function lastKnown(values) {
  for (let at = values.length - 2; at >= Math.max(0, values.length - 4); at -= 1) if (values[at] !== null) return at;
  return values.length - 1;
}
