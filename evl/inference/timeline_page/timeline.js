"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const video = at("video"), still = at("still"), board = at("board"), tip = at("tip");
  const span = Math.max(data.end - data.start, 1e-6);
  const curves = data.curves.map((text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)));
  const colors = (y) => `hsl(${(205 + y * 137.508) % 360} 62% ${matchMedia("(prefers-color-scheme: dark)").matches ? 66 : 40}%)`;
  const occurring = [...new Set(data.segments.map((one) => one[0]))].sort((a, b) => a - b);
  const ofClass = new Map();
  for (const one of data.segments) ofClass.set(one[0], [...(ofClass.get(one[0]) || []), one]);
  const best = data.highest.map((score, y) => [score, y]).sort((a, b) => b[0] - a[0]);
  const shown = new Set(occurring.length ? occurring : best.slice(0, 3).map((one) => one[1]));
  const lanes = new Map();
  let from = data.start, to = data.end, now = data.start, hasVideo = false;

  const clock = (seconds) => {
    const all = Math.round(Math.max(0, seconds) * 100), minutes = Math.floor(all / 6000);
    const two = (value) => String(value).padStart(2, "0");
    const rest = `${two(Math.floor(all / 100) % 60)}.${two(all % 100)}`;
    return minutes >= 60 ? `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}` : `${minutes}:${rest}`;
  };
  const percent = (score) => `${(100 * score).toFixed(1)} %`;
  const element = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const nearest = (values, time) => {
    let low = 0, high = values.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[middle] < time) low = middle + 1; else high = middle;
    }
    return low > 0 && time - values[low - 1] < values[low] - time ? low - 1 : low;
  };
  const scoreAt = (y, time) => curves[y][2 * nearest(data.times, time) + 1] / 255;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // what is seen of the time
  const area = () => {
    const own = board.getBoundingClientRect(), canvas = at("ruler").getBoundingClientRect();
    return { left: canvas.left - own.left, width: canvas.width };
  };
  const x = (time, width) => ((time - from) / (to - from)) * width;
  const look = (start, length) => {
    length = Math.min(span, Math.max(length, Math.min(span, 4 * data.step)));
    from = Math.min(Math.max(start, data.start), data.end - length);
    to = from + length;
    tip.hidden = at("hover").hidden = true; // what they say is elsewhere now
    draw();
  };
  const zoom = (factor, middle = now) => {
    const inside = middle >= from && middle <= to ? middle : (from + to) / 2;
    look(inside - (inside - from) * factor, (to - from) * factor);
  };

  const prepared = (canvas) => {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    return [pen, width, height];
  };

  const drawLane = (y, canvas) => {
    const [pen, width, height] = prepared(canvas), color = colors(y), curve = curves[y];
    const up = (score) => height - 3 - score * (height - 6);
    pen.fillStyle = style("--raised");
    for (const [start, end] of data.damaged) pen.fillRect(x(start, width), 0, Math.max(1, x(end, width) - x(start, width)), height);
    pen.fillStyle = color;
    pen.globalAlpha = 0.28;
    for (const [, start, end] of ofClass.get(y) || []) {
      if (end >= from && start <= to) pen.fillRect(x(start, width), 0, Math.max(2, x(end, width) - x(start, width)), height);
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = style("--soft");
    pen.setLineDash([2, 4]);
    pen.beginPath();
    pen.moveTo(0, up(data.on[y]));
    pen.lineTo(width, up(data.on[y]));
    pen.stroke();
    pen.setLineDash([]);
    const first = Math.max(0, nearest(data.times, from) - 1), last = Math.min(data.times.length - 1, nearest(data.times, to) + 1);
    pen.strokeStyle = pen.fillStyle = color;
    pen.lineWidth = 1.5;
    const broken = (a, b) => data.damaged.some(([start, end]) => start >= a && end <= b + data.step && end > a && start < b);
    for (let begin = first; begin <= last; ) {
      let end = begin;
      while (end < last && !broken(data.times[end], data.times[end + 1])) end++;
      const path = new Path2D();
      for (let n = begin; n <= end; n++) path.lineTo(x(data.times[n], width), up(curve[2 * n + 1] / 255));
      for (let n = end; n >= begin; n--) path.lineTo(x(data.times[n], width), up(curve[2 * n] / 255));
      if (begin === end) path.rect(x(data.times[begin], width) - 1, up(curve[2 * begin + 1] / 255) - 1, 2, 2);
      pen.stroke(path);
      pen.globalAlpha = 0.5;
      pen.fill(path);
      pen.globalAlpha = 1;
      begin = end + 1;
    }
  };

  const drawRuler = () => {
    const [pen, width, height] = prepared(at("ruler"));
    const wanted = (to - from) / Math.max(1, width / 90);
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
    const step = steps.find((one) => one >= wanted) || steps[steps.length - 1];
    pen.fillStyle = style("--soft");
    pen.font = "11px system-ui, sans-serif";
    for (let n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9; n++) {
      const place = x(n * step, width), text = step < 1 ? clock(n * step) : clock(n * step).slice(0, -3);
      pen.fillRect(Math.min(place, width - 1), height - 6, 1, 6);
      const half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(place - half, 0), width - 2 * half), 11);
    }
  };

  const drawStrip = () => {
    const strip = at("strip");
    if (!data.thumbnails.length) return;
    const count = Math.max(2, Math.floor(strip.clientWidth / 92)), times = data.thumbnails.map((one) => one[0]);
    const chosen = Array.from({ length: count }, (_, n) => data.thumbnails[nearest(times, from + ((n + 0.5) / count) * (to - from))]);
    strip.replaceChildren(...chosen.map(([, picture]) => {
      const made = new Image();
      made.alt = "";
      made.draggable = false;
      made.src = `data:image/jpeg;base64,${picture}`;
      return made;
    }));
  };

  const drawCursor = () => {
    const { left, width } = area(), cursor = at("cursor");
    cursor.hidden = now < from || now > to;
    cursor.style.left = `${left + x(now, width)}px`;
    at("clock").value = `${clock(now)} of ${clock(data.end)}`;
    data.segments.forEach((one, n) => rows[n].classList.toggle("now", one[1] <= now && now < one[2]));
    if (!hasVideo && data.thumbnails.length) {
      const times = data.thumbnails.map((one) => one[0]);
      still.src = `data:image/jpeg;base64,${data.thumbnails[nearest(times, now)][1]}`;
    }
  };

  const draw = () => {
    drawStrip();
    drawRuler();
    for (const [y, canvas] of lanes) drawLane(y, canvas);
    drawCursor();
  };

  const seek = (time) => {
    now = Math.min(Math.max(time, data.start), data.end);
    if (hasVideo) video.currentTime = now;
    if (now < from || now > to) look(now - (to - from) / 2, to - from);
    drawCursor();
  };
  const jump = (direction) => {
    const starts = data.segments.map((one) => one[1]);
    const found = direction > 0 ? starts.find((one) => one > now + 0.01) : starts.findLast((one) => one < now - 0.01);
    if (found !== undefined) seek(found);
  };
  const play = () => hasVideo && (video.paused ? video.play() : video.pause());
  const actions = {
    next: () => jump(1), previous: () => jump(-1), in: () => zoom(0.5), out: () => zoom(2), whole: () => look(data.start, span),
  };

  const layLanes = () => {
    lanes.clear();
    at("lanes").replaceChildren(...[...shown].sort((a, b) => a - b).map((y) => {
      const lane = element("div", undefined, "lane"), name = element("div", data.classes[y], "name"), canvas = element("canvas");
      name.title = data.classes[y];
      canvas.dataset.y = y;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${data.classes[y]}: ${(ofClass.get(y) || []).length} segments, highest score ${percent(data.highest[y])}`);
      lanes.set(y, canvas);
      lane.append(name, canvas);
      return lane;
    }));
    draw();
  };

  const rows = data.segments.map(([y, start, end, score]) => {
    const item = element("li"), button = element("button"), swatch = element("span", undefined, "swatch");
    button.type = "button";
    swatch.style.background = colors(y);
    button.append(swatch, element("span", data.classes[y], "label"), element("span", `${clock(start)} – ${clock(end)}`, "when"), element("span", percent(score)));
    button.addEventListener("click", () => seek(start));
    item.append(button);
    return item;
  });
  at("segments").append(...rows);
  at("no-segments").hidden = rows.length > 0;
  at("others").querySelector("summary").textContent = `Classes: ${shown.size} of ${data.classes.length} are shown`;
  at("others").querySelector(".checks").append(...best.map(([score, y]) => {
    const label = element("label"), box = element("input");
    box.type = "checkbox";
    box.checked = shown.has(y);
    box.addEventListener("change", () => {
      if (box.checked) shown.add(y); else shown.delete(y);
      at("others").querySelector("summary").textContent = `Classes: ${shown.size} of ${data.classes.length} are shown`;
      layLanes();
    });
    label.append(box, element("span", data.classes[y]), element("span", percent(score), "score"));
    return label;
  }));

  // pointer and keys
  const pointed = (event) => {
    const { left, width } = area(), own = board.getBoundingClientRect(), place = event.clientX - own.left - left;
    return place < 0 || place > width ? null : from + (place / width) * (to - from);
  };
  board.addEventListener("pointermove", (event) => {
    const time = pointed(event);
    tip.hidden = at("hover").hidden = time === null;
    if (time === null) return;
    at("hover").style.left = `${event.clientX - board.getBoundingClientRect().left}px`;
    const y = event.target.dataset ? event.target.dataset.y : undefined;
    const classes = y !== undefined ? [Number(y)] : [...shown].sort((a, b) => scoreAt(b, time) - scoreAt(a, time)).slice(0, 3);
    const damage = data.damaged.find(([start, end]) => start <= time && time < end);
    const lines = damage ? [`no scores: ${damage[2]}`] : classes.map((one) => `${data.classes[one]}: ${percent(scoreAt(one, time))}`);
    tip.textContent = [clock(time), ...lines].join("\n");
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6))}px`;
    tip.style.top = `${Math.max(4, Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 6))}px`;
  });
  board.addEventListener("pointerleave", () => { tip.hidden = at("hover").hidden = true; });
  board.addEventListener("click", (event) => {
    const time = pointed(event);
    if (time !== null) seek(time);
  });
  board.addEventListener("wheel", (event) => {
    const along = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
    if (event.ctrlKey) zoom(event.deltaY > 0 ? 1.25 : 0.8, pointed(event) ?? now);
    else if (Math.abs(along) > Math.abs(event.shiftKey ? 0 : event.deltaY)) look(from + ((to - from) * along) / 800, to - from);
    else return;
    event.preventDefault();
  }, { passive: false });
  document.querySelectorAll("[data-do]").forEach((button) => button.addEventListener("click", actions[button.dataset.do]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target.tagName;
    if (target === "INPUT" || (event.key === " " && ["BUTTON", "SUMMARY", "VIDEO"].includes(target))) return;
    const move = (event.shiftKey ? 10 : 1) * data.step;
    const keys = {
      ArrowLeft: () => seek(now - move), ArrowRight: () => seek(now + move), " ": play, n: actions.next, p: actions.previous,
      "+": actions.in, "=": actions.in, "-": actions.out, 0: actions.whole, Home: () => seek(data.start), End: () => seek(data.end),
    };
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (target === "VIDEO" && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action();
  });

  // the video, or thumbnails in its place
  const without = () => {
    hasVideo = false;
    video.hidden = true;
    still.hidden = !data.thumbnails.length;
    at("no-picture").hidden = data.thumbnails.length > 0;
    drawCursor();
  };
  video.addEventListener("loadedmetadata", () => {
    if (!video.videoWidth) return without();
    hasVideo = true;
    still.hidden = at("no-picture").hidden = true;
    video.hidden = false;
    if (now > 0) video.currentTime = now;
    draw();
  });
  video.addEventListener("error", without);
  video.addEventListener("timeupdate", () => {
    if (video.seeking) return;
    now = video.currentTime;
    if (!video.paused && (now < from || now > to)) look(now, to - from);
    drawCursor();
  });
  without();
  if (data.video) video.src = data.video;
  layLanes();
  new ResizeObserver(draw).observe(board);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
