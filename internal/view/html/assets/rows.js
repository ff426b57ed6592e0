// The rows: only those in sight are in the document.

const height = 22;
const scroller = $("rows"), canvas = $("canvas");
const pool = new Map(); // index of a span to its row

let planned = false;

// draw draws once before the next frame, however often it is called.
function draw() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    drawRows();
    drawAxis();
  });
}

function trackWidth() {
  return Math.max(1, $("ticks").clientWidth - (scroller.offsetWidth - scroller.clientWidth));
}

const at = (t, width) => ((t - view.from) / (view.to - view.from)) * width;

function drawRows() {
  canvas.style.height = rows.length * height + "px";
  const first = Math.max(0, Math.floor(scroller.scrollTop / height) - 3);
  const last = Math.min(rows.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + 3);
  const width = trackWidth();
  const seen = new Set();
  for (let i = first; i < last; i++) {
    const s = rows[i];
    seen.add(s.index);
    let row = pool.get(s.index);
    if (!row) {
      row = s.fold ? newFold(s) : newRow(s);
      pool.set(s.index, row);
      canvas.append(row);
    }
    row.style.top = i * height + "px";
    row.setAttribute("aria-selected", state.picked === s.index);
    row.setAttribute("aria-posinset", i + 1);
    if (s.fold) {
      drawFold(row.querySelector(".track"), s, width);
      continue;
    }
    row.classList.toggle("found", state.found.has(s.index));
    if (s.children.length > 0) {
      const open = s.open || state.only !== "";
      row.setAttribute("aria-expanded", open);
      row.querySelector(".toggle").textContent = open ? "▾" : "▸";
      row.querySelector(".more").textContent = open ? "" : "+" + s.below;
    }
    drawTrack(row.querySelector(".track"), s, width);
  }
  for (const [index, row] of pool) {
    if (!seen.has(index)) {
      row.remove();
      pool.delete(index);
    }
  }
  scroller.setAttribute("aria-activedescendant", pool.has(state.picked) ? "s" + state.picked : "");
}

function newRow(s) {
  const kind = ["row", s.parent < 0 && "root", s.failed && "failed", s.expected && "expected", s.absent && "absent"].filter(Boolean).join(" ");
  const row = element("div", { class: kind, id: "s" + s.index, role: "treeitem", "aria-level": s.level, "data-name": s.name },
    nameCell(s, element("span", { class: "toggle" }), element("b", {}, s.title), element("small", {}, s.about), element("small", { class: "more" })),
    element("div", { class: "track" }));
  row.title = `${s.name}${s.known ? "\n" + duration(s.to - s.from) : ""}${s.message ? "\n" + s.message : ""}`;
  return row;
}

function nameCell(s, ...parts) {
  const cell = element("div", { class: "name" }, ...parts);
  cell.style.paddingLeft = 6 + Math.min(s.level - 1, 20) * 12 + "px";
  return cell;
}

// newFold returns the row of several short spans: their number and the names that took
// longest.
function newFold(f) {
  const sums = new Map();
  for (const s of f.fold) sums.set(s.title, (sums.get(s.title) ?? 0) + s.to - s.from);
  const names = [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const count = f.fold.reduce((n, s) => n + 1 + s.below, 0);
  const row = element("div", { class: "row fold", id: "s" + f.index, role: "treeitem", "aria-level": f.level, title: "short spans: click to see them" },
    nameCell(f, element("span", { class: "toggle" }, "▸"), element("b", {}, `+${count} ${names.slice(0, 3).join(", ")}${names.length > 3 ? ", …" : ""}`)),
    element("div", { class: "track" }));
  row.addEventListener("click", () => { f.of.brief = false; arrange(); });
  return row;
}

function drawFold(track, f, width) {
  const parts = [];
  let drawn = -Infinity; // to where, so that a thousand spans in one place are one line
  for (const s of f.fold) {
    const a = at(s.from, width), b = at(s.to, width);
    if (!s.known || b < 0 || a > width || b < drawn + 1 && parts.length > 0) continue;
    const e = element("div", { class: "bar v" + (s.service % 6) });
    e.style.left = Math.max(-2, a) + "px";
    e.style.width = Math.max(0, Math.min(width + 2, b) - Math.max(-2, a)) + "px";
    parts.push(e);
    drawn = b;
  }
  track.replaceChildren(...parts);
}

// drawTrack draws a span's bar, its part of the critical path, its events and its length.
function drawTrack(track, s, width) {
  if (!s.known || s.absent) {
    track.replaceChildren();
    return;
  }
  const parts = [];
  const box = (kind, from, to) => {
    const a = Math.max(-2, at(from, width)), b = Math.min(width + 2, at(to, width));
    if (b < -1 || a > width + 1) return undefined;
    const e = element("div", { class: kind });
    e.style.left = a + "px";
    e.style.width = Math.max(0, b - a) + "px";
    parts.push(e);
    return { a, b };
  };
  const bar = box("bar v" + (s.service % 6), s.from, s.to);
  for (const [from, to] of s.path) box("path", from, to);
  for (const [t] of s.events) {
    if (t >= view.from && t <= view.to) box("event", t, t);
  }
  if (bar && s.to > s.from) {
    const text = duration(s.to - s.from), room = text.length * 6.5 + 8;
    const label = element("div", { class: "length" }, text);
    if (bar.b + room <= width) {
      label.style.left = bar.b + 4 + "px";
    } else if (bar.a >= room) {
      label.style.right = width - bar.a + 4 + "px";
    } else {
      label.className += " inside";
      label.style.left = Math.max(4, bar.a + 4) + "px";
    }
    parts.push(label);
  }
  track.replaceChildren(...parts);
}
