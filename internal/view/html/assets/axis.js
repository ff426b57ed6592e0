// The time above the rows: the whole story with the part that is shown, and its scale.

const overview = $("overview");

function drawAxis() {
  drawTicks();
  drawOverview();
}

function drawTicks() {
  const width = trackWidth(), length = view.to - view.from;
  const raw = (length / width) * 90;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(view.from / step) * step; t <= view.to; t += step) {
    const text = t === 0 ? "0" : duration(t), fits = at(t, width) + text.length * 6.5 + 4 <= width;
    const tick = element("span", {}, fits ? text : "");
    tick.style.left = at(t, width) + "px";
    ticks.push(tick);
  }
  $("ticks").replaceChildren(...ticks);
  $("axisnames").textContent = `${rows.length} of ${spans.length} spans · ${duration(length)} shown`;
}

// drawOverview draws all spans as thin lines at their level, deep ones at the bottom.
function drawOverview() {
  const ratio = window.devicePixelRatio || 1, width = overview.clientWidth, tall = overview.clientHeight;
  overview.width = width * ratio;
  overview.height = tall * ratio;
  const c = overview.getContext("2d");
  c.scale(ratio, ratio);
  const x = (t) => ((t - whole.from) / (whole.to - whole.from)) * width;
  const colors = [0, 1, 2, 3, 4, 5].map((i) => color("--service-" + i)), failed = color("--failed");
  const levels = Math.min(14, Math.max(4, spans.reduce((most, s) => Math.max(most, s.level), 1)));
  const line = (tall - 4) / levels;
  for (const s of spans) {
    if (!s.known || s.absent) continue;
    c.fillStyle = s.failed ? failed : colors[s.service % 6];
    c.fillRect(x(s.from), 2 + Math.min(s.level - 1, levels - 1) * line, Math.max(1, x(s.to) - x(s.from)), Math.max(1, line - 0.6));
  }
  c.fillStyle = color("--faint");
  c.globalAlpha = 0.35;
  c.fillRect(0, 0, x(view.from), tall);
  c.fillRect(x(view.to), 0, width - x(view.to), tall);
}
