// What the person does.

const press = {
  start: () => margin(begin), all: () => margin(whole), in: () => zoom(0.6), out: () => zoom(1 / 0.6),
  critical: () => only("critical"), errors: () => only("errors"),
  expand: () => {
    for (const s of spans) {
      s.open = true;
      s.brief = false;
    }
    arrange();
  },
  collapse: () => { fold(); arrange(); },
  theme: () => {
    const order = ["", "light", "dark"], root = document.documentElement;
    const next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
    if (next) root.dataset.theme = next; else delete root.dataset.theme;
    draw();
  },
  keys: () => { const d = $("help"); if (d.open) d.close(); else d.showModal(); },
};
for (const [id, action] of Object.entries(press)) $(id).addEventListener("click", action);

const keys = {
  s: press.start, 0: press.all, "+": press.in, "=": press.in, "-": press.out, c: press.critical, e: press.errors,
  x: press.expand, z: press.collapse, t: press.theme, "?": press.keys,
  "[": () => pan(-0.25), "]": () => pan(0.25), n: () => next(1), N: () => next(-1),
  ArrowDown: () => move(1), ArrowUp: () => move(-1), j: () => move(1), k: () => move(-1),
  PageDown: () => move(Math.floor(scroller.clientHeight / height) - 1),
  PageUp: () => move(1 - Math.floor(scroller.clientHeight / height)),
  Home: () => move(-rows.length), End: () => move(rows.length),
  ArrowLeft: () => {
    const s = spans[state.picked];
    if (s && s.open && s.children.length > 0 && state.only === "") toggle(s);
    else if (s && spans[s.parent]) pick(spans[s.parent]);
  },
  ArrowRight: () => {
    const s = spans[state.picked];
    if (s && !s.open && s.children.length > 0) toggle(s);
    else if (s && s.children.length > 0) pick(s.children[0]);
  },
  Enter: () => { const s = spans[state.picked]; if (s && s.known) margin(s, 0.1); },
  " ": () => { const s = spans[state.picked]; if (s) toggle(s); },
  "/": () => $("search").focus(),
  Escape: () => pick(),
};

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || $("help").open && e.key !== "?") return;
  if (e.target === $("search")) {
    if (e.key === "Enter") next(e.shiftKey ? -1 : 1);
    if (e.key === "Escape") { $("search").value = ""; search(""); scroller.focus(); }
    return;
  }
  if (e.target.tagName === "BUTTON" && (e.key === "Enter" || e.key === " ")) return;
  const action = keys[e.key];
  if (action) {
    e.preventDefault();
    action();
  }
});

function move(by) {
  const own = rows.filter((s) => !s.fold), now = own.indexOf(spans[state.picked]);
  pick(own[Math.min(Math.max(now < 0 ? 0 : now + by, 0), own.length - 1)]);
}

function toggle(s) {
  s.open = !s.open;
  arrange();
}

function search(text) {
  state.wanted = text.trim().toLowerCase();
  state.found = new Set(state.wanted === "" ? [] : spans.filter((s) => has(s, state.wanted)).map((s) => s.index));
  tell();
  draw();
}

// next picks the next match in the order of the rows, folded ones included.
function next(by) {
  const found = [...state.found].sort((a, b) => a - b);
  if (found.length === 0) return;
  const beyond = by > 0 ? found.findIndex((i) => i > state.picked) : found.findLastIndex((i) => i < state.picked);
  reveal(spans[beyond >= 0 ? found[beyond] : found.at(by > 0 ? 0 : -1)]);
  tell();
}

function tell() {
  const found = [...state.found].sort((a, b) => a - b), i = found.indexOf(state.picked);
  $("matches").textContent = state.wanted === "" ? "" : found.length === 0 ? "nothing" : `${i < 0 ? "" : i + 1 + " of "}${found.length} spans`;
}

$("search").addEventListener("input", (e) => search(e.target.value));

const rowOf = (e) => spans[e.target.closest?.(".row")?.id.slice(1)];

scroller.addEventListener("click", (e) => {
  const s = rowOf(e);
  if (!s || dragged) return;
  if (e.target.closest(".toggle") && s.children.length > 0) toggle(s);
  else pick(s);
});
scroller.addEventListener("dblclick", (e) => {
  const s = rowOf(e);
  if (s && s.known && !e.target.closest(".toggle")) margin(s, 0.1);
});
scroller.addEventListener("scroll", draw);
new ResizeObserver(draw).observe($("chart"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// moment returns the time below the pointer.
function moment(e) {
  const box = $("ticks").getBoundingClientRect();
  return view.from + ((e.clientX - box.left) / trackWidth()) * (view.to - view.from);
}

scroller.addEventListener("wheel", (e) => {
  if (e.ctrlKey || e.shiftKey && e.deltaY !== 0) {
    e.preventDefault();
    zoom(Math.exp(Math.sign(e.deltaY) * Math.min(0.4, Math.abs(e.deltaY) / 300)), moment(e));
  } else if (e.deltaX !== 0) {
    e.preventDefault();
    pan(e.deltaX / trackWidth());
  }
}, { passive: false });

// Dragging over the bars, or over the whole story, shows that part.
let dragged = false;

function onDrag(target, time, accepts, mark) {
  target.addEventListener("pointerdown", (down) => {
    dragged = false;
    if (down.button !== 0 || !accepts(down)) return;
    const from = time(down);
    const range = mark ? element("div", { id: "range" }) : undefined;
    const moving = (e) => {
      if (!dragged && Math.abs(e.clientX - down.clientX) < 4) return;
      dragged = true;
      if (range) {
        const box = target.getBoundingClientRect();
        range.style.left = Math.min(e.clientX, down.clientX) - box.left + "px";
        range.style.width = Math.abs(e.clientX - down.clientX) + "px";
        range.style.height = canvas.style.height;
        if (!range.isConnected) canvas.append(range);
      } else {
        show(Math.min(from, time(e)), Math.max(from, time(e)));
      }
    };
    const up = (e) => {
      removeEventListener("pointermove", moving);
      range?.remove();
      if (dragged && range) show(Math.min(from, time(e)), Math.max(from, time(e)));
      if (!dragged && !mark) show(from - (view.to - view.from) / 2, from + (view.to - view.from) / 2);
    };
    addEventListener("pointermove", moving);
    addEventListener("pointerup", up, { once: true });
  });
}

onDrag(scroller, moment, (e) => e.target.closest(".track"), true);
onDrag(overview, (e) => {
  const box = overview.getBoundingClientRect();
  return whole.from + ((e.clientX - box.left) / box.width) * (whole.to - whole.from);
}, () => true, false);
