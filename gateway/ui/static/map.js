// Where a photo was taken, on a map that is drawn here: the world's land, a net of degrees, and a spot.

import { h, s } from "./dom.js";
import { LAND } from "./world.js";

/** A map with its point; a button looks closer and back. Degrees, north and east positive. */
export function drawMap(latitude, longitude) {
  const x = (longitude + 180) * 10;
  const y = (90 - latitude) * 10;
  const halo = s("circle", { class: "halo", cx: x, cy: y });
  const spot = s("circle", { class: "spot", cx: x, cy: y });
  const map = s("svg", { class: "map", role: "img", "aria-label": `A map of the world with a spot at ${degrees(latitude, longitude)}` },
    s("path", { class: "net", d: net() }), s("path", { class: "land", d: LAND }), halo, spot);
  let near = true;
  const button = h("button", { type: "button", class: "small", on: { click: () => look(!near) } });

  function look(close) {
    near = close;
    const width = near ? 1100 : 3600;
    const height = near ? 550 : 1500;
    const left = clamp(x - width / 2, 0, 3600 - width);
    const top = near ? clamp(y - height / 2, 0, 1800 - height) : 50;
    map.setAttribute("viewBox", `${left} ${top} ${width} ${height}`);
    halo.setAttribute("r", width / 40);
    spot.setAttribute("r", width / 110);
    spot.setAttribute("stroke-width", width / 350);
    map.querySelector(".net").style.strokeWidth = width / 500;
    button.textContent = near ? "Show the whole world" : "Look closer";
  }

  look(true);
  return h("figure", {}, map, button);
}

/** 48.8925° N, 2.2364° W */
export function degrees(latitude, longitude) {
  const part = (value, positive, negative) => `${Math.abs(value).toFixed(4)}° ${value < 0 ? negative : positive}`;
  return `${part(latitude, "N", "S")}, ${part(longitude, "E", "W")}`;
}

function net() {
  let path = "";
  for (let x = 0; x <= 3600; x += 150) path += `M${x} 0V1800`;
  for (let y = 0; y <= 1800; y += 150) path += `M0 ${y}H3600`;
  return path;
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
