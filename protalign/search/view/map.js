// A map of points in two dimensions on a canvas: zoom, move, point at, choose. Both the report and the
// page of the server draw theirs with it.
window.ProtAlign = window.ProtAlign || {};
(() => {
  "use strict";

  const NEAR = 14; // pixels between the pointer and a point that it points at
  const MARGIN = 22; // pixels around the points
  const STEP = 1.3;

  const draw = {
    circle: (context, x, y, r) => context.arc(x, y, r, 0, 2 * Math.PI),
    triangle: (context, x, y, r) => {
      context.moveTo(x, y - 1.2 * r);
      context.lineTo(x + 1.1 * r, y + 0.8 * r);
      context.lineTo(x - 1.1 * r, y + 0.8 * r);
      context.closePath();
    },
  };

  class PointMap {
    // box: the element that the map fills. groups: [{name, colour, symbol, size, x, y, label(i)}].
    // options: label: what the map is, for screen readers; onPoint(group, i) and onChoose(group, i),
    // both with null when the pointer points at nothing; edge: the colour around points.
    constructor(box, groups, options = {}) {
      this.box = box;
      this.groups = groups;
      this.options = options;
      this.lines = [];
      this.rings = [];
      this.pointed = null;
      this.canvas = document.createElement("canvas");
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "application");
      this.canvas.setAttribute("aria-roledescription", "map");
      this.canvas.setAttribute("aria-label", `${options.label || "Map"}. Arrow keys move it, plus and minus zoom, 0 shows all.`);
      this.tip = document.createElement("div");
      this.tip.className = "map-tip";
      this.tip.hidden = true;
      box.classList.add("point-map");
      box.replaceChildren(this.canvas, this.tip);
      this.listen();
      this.watch = new ResizeObserver(() => this.resize());
      this.watch.observe(box);
      this.theme = window.matchMedia("(prefers-color-scheme: dark)");
      this.repaint = () => this.paint();
      this.theme.addEventListener("change", this.repaint);
      this.resize();
    }

    resize() {
      const { clientWidth, clientHeight } = this.box;
      this.ratio = window.devicePixelRatio || 1;
      this.width = Math.max(clientWidth, 10);
      this.height = Math.max(clientHeight, 10);
      this.canvas.width = Math.round(this.width * this.ratio);
      this.canvas.height = Math.round(this.height * this.ratio);
      if (!this.moved) this.fit();
      this.paint();
    }

    // Show all points, each axis stretched to the room that there is.
    fit() {
      const range = (axis) => {
        let [low, high] = [Infinity, -Infinity];
        for (const group of this.groups) {
          for (const value of group[axis]) {
            low = Math.min(low, value);
            high = Math.max(high, value);
          }
        }
        return low <= high ? [low, Math.max(high - low, 1e-9)] : [0, 1];
      };
      const [[left, wide], [bottom, high]] = [range("x"), range("y")];
      this.scale = [(this.width - 2 * MARGIN) / wide, -(this.height - 2 * MARGIN) / high];
      this.shift = [MARGIN - left * this.scale[0], this.height - MARGIN - bottom * this.scale[1]];
      this.moved = false;
    }

    // The pixel of a point.
    place(x, y) {
      return [x * this.scale[0] + this.shift[0], y * this.scale[1] + this.shift[1]];
    }

    zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
      const grown = Math.abs(this.scale[0]) * factor;
      if (!(grown > 1e-6 && grown < 1e9)) return;
      this.scale = this.scale.map((value) => value * factor);
      this.shift = [x + (this.shift[0] - x) * factor, y + (this.shift[1] - y) * factor];
      this.moved = true;
      this.paint();
    }

    pan(x, y) {
      this.shift = [this.shift[0] + x, this.shift[1] + y];
      this.moved = true;
      this.paint();
    }

    reset() {
      this.fit();
      this.paint();
    }

    // Mark points: lines [x1, y1, x2, y2], rings {x, y, size, colour, width}.
    mark(lines, rings) {
      this.lines = lines;
      this.rings = rings;
      this.paint();
    }

    paint() {
      const context = this.canvas.getContext("2d");
      const style = getComputedStyle(this.box);
      const [ground, ink] = [style.backgroundColor, style.color];
      context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
      context.clearRect(0, 0, this.width, this.height);
      context.strokeStyle = ink;
      context.globalAlpha = 0.6;
      context.lineWidth = 1;
      context.beginPath();
      for (const [x1, y1, x2, y2] of this.lines) {
        context.moveTo(...this.place(x1, y1));
        context.lineTo(...this.place(x2, y2));
      }
      context.stroke();
      context.globalAlpha = 1;
      for (const group of this.groups) {
        context.fillStyle = group.colour;
        context.strokeStyle = ground;
        context.lineWidth = 0.7;
        context.globalAlpha = group.opacity || 1;
        for (let i = 0; i < group.x.length; i++) {
          const [x, y] = this.place(group.x[i], group.y[i]);
          if (x < -20 || y < -20 || x > this.width + 20 || y > this.height + 20) continue;
          context.beginPath();
          draw[group.symbol](context, x, y, group.size);
          context.fill();
          context.stroke();
        }
      }
      context.globalAlpha = 1;
      for (const { x, y, size, colour, width } of this.rings) {
        context.strokeStyle = colour || ink;
        context.lineWidth = width || 2;
        context.beginPath();
        context.arc(...this.place(x, y), size, 0, 2 * Math.PI);
        context.stroke();
      }
    }

    // The nearest point to a pixel: [group, i], or null.
    at(x, y) {
      let found = null, least = NEAR ** 2;
      this.groups.forEach((group, g) => {
        for (let i = 0; i < group.x.length; i++) {
          const [px, py] = this.place(group.x[i], group.y[i]);
          const apart = (px - x) ** 2 + (py - y) ** 2;
          if (apart < least) [found, least] = [[g, i], apart];
        }
      });
      return found;
    }

    point(found, x, y) {
      const same = found && this.pointed && found[0] === this.pointed[0] && found[1] === this.pointed[1];
      this.tip.hidden = !found;
      if (found) {
        this.tip.textContent = this.groups[found[0]].label(found[1]);
        const left = Math.min(x + 14, this.width - this.tip.offsetWidth - 4);
        const top = y + 18 + this.tip.offsetHeight > this.height ? y - 10 - this.tip.offsetHeight : y + 16;
        this.tip.style.setProperty("left", `${Math.max(left, 0)}px`);
        this.tip.style.setProperty("top", `${Math.max(top, 0)}px`);
      }
      this.canvas.classList.toggle("pointing", Boolean(found));
      if (same || (!found && !this.pointed)) return;
      this.pointed = found;
      if (this.options.onPoint) this.options.onPoint(...(found || [null, null]));
    }

    listen() {
      const inside = (event) => {
        const box = this.canvas.getBoundingClientRect();
        return [event.clientX - box.left, event.clientY - box.top];
      };
      let from = null, dragged = false;
      this.canvas.addEventListener("pointerdown", (event) => {
        [from, dragged] = [inside(event), false];
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const to = inside(event);
        if (from) {
          const [x, y] = [to[0] - from[0], to[1] - from[1]];
          if (dragged || Math.hypot(x, y) > 4) {
            dragged = true;
            this.pan(x, y);
            from = to;
          }
        } else this.point(this.at(...to), ...to);
      });
      const ended = (event) => {
        if (from && !dragged && event.type === "pointerup" && this.options.onChoose) {
          this.options.onChoose(...(this.at(...inside(event)) || [null, null]));
        }
        from = null;
      };
      this.canvas.addEventListener("pointerup", ended);
      this.canvas.addEventListener("pointercancel", ended);
      this.canvas.addEventListener("pointerleave", () => this.point(null));
      this.canvas.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return; // the wheel alone moves the page
        event.preventDefault();
        this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, inside(event));
      }, { passive: false });
      this.canvas.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const pans = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
        const zooms = { "+": STEP, "=": STEP, "-": 1 / STEP };
        if (pans[event.key]) this.pan(...pans[event.key]);
        else if (zooms[event.key]) this.zoom(zooms[event.key]);
        else if (event.key === "0") this.reset();
        else return;
        event.preventDefault();
      });
    }

    // Buttons that zoom and reset, and one that saves the picture.
    buttons() {
      const make = (text, name, action) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.title = name;
        button.setAttribute("aria-label", name);
        button.addEventListener("click", action);
        return button;
      };
      return [
        make("+", "Zoom in", () => this.zoom(STEP)),
        make("−", "Zoom out", () => this.zoom(1 / STEP)),
        make("Show all", "Show all points", () => this.reset()),
        make("Save picture", "Save picture as a PNG file", () => this.save()),
      ];
    }

    save() {
      const whole = document.createElement("canvas");
      [whole.width, whole.height] = [this.canvas.width, this.canvas.height];
      const context = whole.getContext("2d");
      context.fillStyle = getComputedStyle(this.box).backgroundColor;
      context.fillRect(0, 0, whole.width, whole.height);
      context.drawImage(this.canvas, 0, 0);
      whole.toBlob((picture) => {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(picture);
        link.download = "map.png";
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      });
    }

    close() {
      this.watch.disconnect();
      this.theme.removeEventListener("change", this.repaint);
    }
  }

  Object.assign(window.ProtAlign, { PointMap });
})();
