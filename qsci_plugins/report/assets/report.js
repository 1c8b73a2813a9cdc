"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.documentElement.classList.add("live");

  const LENS = 48; // pixels of a picture across the lens
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  class Viewer {
    constructor(root) {
      this.root = root;
      this.picture = data.pictures[Number(root.dataset.picture)];
      this.stage = root.querySelector(".stage");
      this.layers = [...root.querySelectorAll(".layer")];
      this.images = this.layers.map((layer) => layer.querySelector("img"));
      this.lenses = [...root.querySelectorAll(".lens")];
      this.sides = [...root.querySelectorAll("select.side")];
      this.split = root.querySelector("input.split");
      this.bits = root.querySelector("input.bits-switch");
      this.frame = root.querySelector("input.frame");
      this.play = root.querySelector("button.play");
      this.aim = root.querySelector(".aim");
      this.readout = root.querySelector(".readout output");
      [this.x, this.y] = this.picture.focus;
      this.lens = Math.min(LENS, this.picture.width, this.picture.height);
      this.timer = 0;
      this.start();
    }

    start() {
      const keys = this.picture.forms.map((form) => form.key);
      const first = Math.max(0, keys.indexOf("float"), keys.includes("float") ? 0 : keys.indexOf("measurement"));
      const second = keys.indexOf("ours");
      if (this.sides.length) {
        this.sides[0].value = String(first);
        this.sides[1].value = String(second >= 0 && second !== first ? second : (first + 1) % keys.length);
        this.sides.forEach((side) => side.addEventListener("change", () => this.show()));
        this.split.addEventListener("input", () => this.show());
      }
      if (this.bits) {
        this.bits.checked = this.picture.forms.length === 1;
        this.bits.addEventListener("change", () => this.show());
      }
      if (this.frame) {
        this.frame.addEventListener("input", () => this.show());
        this.play.addEventListener("click", () => this.toggle());
      }
      this.stage.addEventListener("pointermove", (event) => this.point(event));
      this.stage.addEventListener("pointerdown", (event) => this.press(event));
      this.stage.addEventListener("keydown", (event) => this.key(event));
      this.images.forEach((image) => {
        if (!image.complete) image.addEventListener("load", () => this.magnify());
      });
      this.show();
    }

    point(event) {
      const area = this.stage.getBoundingClientRect();
      const x = (event.clientX - area.left) / area.width;
      this.x = clamp(Math.floor(x * this.picture.width), 0, this.picture.width - 1);
      this.y = clamp(Math.floor(((event.clientY - area.top) / area.height) * this.picture.height), 0, this.picture.height - 1);
      if (this.split && event.buttons & 1) {
        this.split.value = String(Math.round(clamp(100 * x, 0, 100)));
        this.show();
      } else {
        this.magnify();
      }
    }

    press(event) {
      if (event.pointerType === "mouse" && event.button === 0) this.stage.setPointerCapture(event.pointerId);
      this.point(event);
    }

    key(event) {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const step = event.shiftKey ? 16 : 2;
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      if (moves[event.key]) {
        this.x = clamp(this.x + moves[event.key][0], 0, this.picture.width - 1);
        this.y = clamp(this.y + moves[event.key][1], 0, this.picture.height - 1);
        this.magnify();
      } else if (event.key.toLowerCase() === "b" && this.bits) {
        this.bits.checked = !this.bits.checked;
        this.show();
      } else if (event.key === " " && this.frame) {
        this.toggle();
      } else {
        return;
      }
      event.preventDefault();
    }

    toggle() {
      const playing = this.timer !== 0;
      this.play.textContent = playing ? "Play" : "Pause";
      this.play.setAttribute("aria-pressed", String(!playing));
      if (playing) {
        clearInterval(this.timer);
        this.timer = 0;
        return;
      }
      this.timer = setInterval(() => {
        this.frame.value = String((Number(this.frame.value) + 1) % this.picture.frames);
        this.show();
      }, 125);
    }

    /** The frame of a form that is shown now: forms of a single frame, such as a measurement, stand still. */
    frameOf(index) {
      return this.frame ? Math.min(Number(this.frame.value), this.picture.forms[index].frames - 1) : 0;
    }

    show() {
      const chosen = this.sides.length ? this.sides.map((side) => Number(side.value)) : [0, 0];
      const part = this.split ? Number(this.split.value) : 100;
      this.layers.forEach((layer, index) => {
        const left = index === chosen[0];
        const right = index === chosen[1];
        layer.classList.toggle("shown", left || right);
        layer.classList.toggle("left-side", left);
        layer.classList.toggle("right-side", right && !left);
        const both = left && right;
        layer.style.clipPath = both ? "none" : left ? `inset(0 ${100 - part}% 0 0)` : right ? `inset(0 0 0 ${part}%)` : "none";
        const frames = this.picture.forms[index].frames;
        this.images[index].style.transform = `translateY(${(-100 * this.frameOf(index)) / frames}%)`;
      });
      this.lenses.forEach((lens, index) => lens.classList.toggle("chosen", this.sides.length > 0 && chosen.includes(index)));
      const divider = this.root.querySelector(".divider");
      divider.style.left = `${part}%`;
      divider.hidden = !this.split;
      divider.style.display = this.split ? "" : "none";
      if (this.bits) this.root.classList.toggle("bits-on", this.bits.checked);
      if (this.frame) {
        this.root.querySelector(".frame-number").textContent = `${Number(this.frame.value) + 1} of ${this.picture.frames}`;
      }
      this.magnify();
    }

    magnify() {
      const { width, height, forms } = this.picture;
      const left = clamp(this.x - this.lens / 2, 0, width - this.lens);
      const top = clamp(this.y - this.lens / 2, 0, height - this.lens);
      this.aim.style.left = `${(100 * left) / width}%`;
      this.aim.style.top = `${(100 * top) / height}%`;
      this.aim.style.width = `${(100 * this.lens) / width}%`;
      this.aim.style.height = `${(100 * this.lens) / height}%`;
      this.lenses.forEach((lens, index) => {
        const image = this.images[index];
        if (!image.complete || !image.naturalWidth) return;
        const ratio = image.naturalWidth / width;
        const offset = (this.frameOf(index) * image.naturalHeight) / forms[index].frames;
        const canvas = lens.querySelector("canvas");
        const context = canvas.getContext("2d");
        context.imageSmoothingEnabled = false;
        context.drawImage(
          image, left * ratio, top * ratio + offset, this.lens * ratio, this.lens * ratio, 0, 0, canvas.width, canvas.height,
        );
      });
      this.readout.textContent = this.described();
    }

    described() {
      const place = `x ${this.x}, y ${this.y}`;
      const boxes = this.picture.boxes;
      if (!boxes.length) return place;
      const box = boxes.find((each) => this.x >= each.left && this.x < each.right && this.y >= each.top && this.y < each.bottom);
      return box ? `${place}: ${box.bits.toFixed(2)} bits, tile ${boxes.indexOf(box) + 1} of ${boxes.length}` : place;
    }
  }

  document.querySelectorAll(".viewer").forEach((root) => new Viewer(root));

  document.querySelectorAll("button.copy").forEach((button) => {
    const text = button.parentElement.querySelector("pre");
    button.addEventListener("click", async () => {
      let copied = true;
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text); // where a page from a file may not write to the clipboard itself
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Press Ctrl-C";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
})();
