'use strict';

/*
 * Lanes over time, on a canvas: boxes in rows, stretches shaded across a lane, arrows from lane to lane, marks
 * across all of them; with zoom, pan and hover. Knows nothing of what it shows. A picture is plain data:
 *
 *   end      time goes from 0 to here
 *   finest   the shortest time that the view can be narrowed to
 *   tick     (time, step) => what stands at the axis, where lines are `step` apart
 *   items    { from, to, style }: three arrays, by item; everything else names items by their place there
 *   styles   [{ colour, stub }]: by number; `colour` is a custom property of CSS. An arrow whose style is a stub
 *            has no end
 *   lanes    [{ name, parts: [{ name, rows: [{ ids, height }] }], shades }]: `ids` and `shades` are items by
 *            `from`; the items of a row do not overlap. Arrows start and end at the first part
 *   arrows   { ids, source, target }: items by `from`; and by item the lanes it leads from and to, -1 for none
 *   marks    [{ at, text }]
 *
 * Only what can be seen is drawn: one mark for the items that share a column of pixels, paler the less of the
 * column they fill; and of very many arrows only some.
 */

/** Room for names: four digits of a CPU, and a part. */
const GUTTER = 96;
const AXIS = 24;
const LANE_GAP = 7;
const PART_GAP = 2;
/** Most pixels between the pointer and an item that it chooses. */
const REACH = 3;
/** Most arrows that are drawn at once; of more, every nth is drawn. */
const MOST_ARROWS = 1500;
/** Least width of a box that has text in it. */
const TEXT_WIDTH = 22;

/** The first of `count` places for which `isBefore` is false; it is true for all places before. */
function firstNot(count, isBefore) {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (isBefore(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Some items in the order in which they begin, for a fast search by time. */
class Track {
  constructor(items, ids) {
    this.items = items;
    this.ids = ids;
    this.latest = new Float64Array(ids.length);
    this.filled = new Float64Array(ids.length + 1);
    let latest = -Infinity;
    for (let i = 0; i < ids.length; i += 1) {
      const from = items.from[ids[i]];
      const to = items.to[ids[i]];
      latest = Math.max(latest, to);
      this.latest[i] = latest;
      this.filled[i + 1] = this.filled[i] + (to - from);
    }
  }

  /** The place of the first item that has not ended at `time`. */
  notOver(time) {
    return firstNot(this.ids.length, (i) => this.latest[i] < time);
  }

  /** How many items have begun by `time`. */
  begun(time) {
    return firstNot(this.ids.length, (i) => this.items.from[this.ids[i]] <= time);
  }
}

class Lanes {
  /**
   * Draws `picture` in `place`. `talk` returns the texts: `label(id)` for a box, `tell(id)` (lines) for the pointer;
   * and is called when something happens: `moved()`, `chosen(id)`.
   */
  constructor(place, picture, talk) {
    this.picture = picture;
    this.items = picture.items;
    this.talk = talk;
    this.view = { from: 0, to: picture.end };
    this.hovered = null;
    this.chosen = null;
    // Of the last picture: the arrows in it, one in `every` of those in view, and how long it took.
    this.drawn = { arrows: 0, every: 1, milliseconds: 0 };

    this.extent = document.createElement('div');
    this.canvas = document.createElement('canvas');
    this.canvas.tabIndex = 0;
    this.tip = document.createElement('div');
    this.tip.className = 'tip';
    this.tip.hidden = true;
    this.extent.append(this.canvas);
    place.replaceChildren(this.extent);
    place.after(this.tip);
    this.place = place;
    this.context = this.canvas.getContext('2d');

    this.layOut();
    this.resize();
    this.show(() => true, null);
    this.listen();
  }

  /** Forgets the picture; another can be drawn in the same place. */
  close() {
    cancelAnimationFrame(this.waiting);
    this.ended.abort();
    this.sizes.disconnect();
    this.tip.remove();
    this.place.replaceChildren();
  }

  // Positions.

  layOut() {
    let top = AXIS + LANE_GAP;
    this.lanes = this.picture.lanes.map((lane) => {
      const laid = { name: lane.name, top, shadeIds: lane.shades, parts: [] };
      for (const part of lane.parts) {
        const rows = [];
        const partTop = top;
        for (const row of part.rows) {
          rows.push({ ids: row.ids, top, height: row.height });
          top += row.height;
        }
        laid.parts.push({ name: part.name, top: partTop, bottom: top, rows });
        top += PART_GAP;
      }
      laid.bottom = top - PART_GAP;
      top += LANE_GAP;
      return laid;
    });
    this.height = top;
    this.extent.style.height = `${this.height}px`;
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.place.clientWidth;
    this.visible = Math.min(this.place.clientHeight, this.height);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.visible * ratio);
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.visible}px`;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  get scale() {
    return Math.max(1, this.width - GUTTER) / (this.view.to - this.view.from);
  }

  x(time) {
    return GUTTER + (time - this.view.from) * this.scale;
  }

  time(x) {
    return this.view.from + (x - GUTTER) / this.scale;
  }

  /** The middle of an item, as pixels of the canvas; `null` if it is not in view. */
  position(id) {
    const arrow = this.arrowEnds(id);
    if (arrow) {
      return { x: (arrow.x0 + arrow.x1) / 2, y: (arrow.y0 + arrow.y1) / 2 };
    }
    const row = this.rowOf(id);
    if (!row) return null;
    const middle = (this.items.from[id] + this.items.to[id]) / 2;
    return { x: this.x(middle), y: row.top + row.height / 2 - this.place.scrollTop };
  }

  *rows() {
    for (const lane of this.lanes) {
      for (const part of lane.parts) yield* part.rows;
    }
  }

  rowOf(id) {
    for (const row of this.rows()) {
      const ids = row.track.ids;
      const from = this.items.from[id];
      let i = firstNot(ids.length, (at) => this.items.from[ids[at]] < from);
      for (; i < ids.length && this.items.from[ids[i]] === from; i += 1) {
        if (ids[i] === id) return row;
      }
    }
    return null;
  }

  // What is in view.

  /** Shows the items for which `shown` is true. With `lit`, boxes of all others are pale, and their arrows hidden. */
  show(shown, lit) {
    const pick = (ids, keep) => new Track(this.items, ids.filter(keep));
    const isLit = lit && ((id) => shown(id) && lit(id));
    for (const row of this.rows()) {
      row.track = pick(row.ids, shown);
      row.lit = isLit && pick(row.ids, isLit);
    }
    for (const lane of this.lanes) lane.shades = pick(lane.shadeIds, shown);
    this.arrows = pick(this.picture.arrows.ids, isLit || shown);
    this.isLit = isLit;
    this.order = null;
    this.redraw();
  }

  /** Narrows the view to a stretch of time, or widens it. */
  look(from, to) {
    const { end, finest } = this.picture;
    const length = Math.min(Math.max(to - from, finest), end);
    const start = Math.min(Math.max(from, 0), end - length);
    this.view = { from: start, to: start + length };
    this.redraw();
  }

  zoom(factor, at = (this.view.from + this.view.to) / 2) {
    const { end, finest } = this.picture;
    const length = Math.min(Math.max((this.view.to - this.view.from) * factor, finest), end);
    const real = length / (this.view.to - this.view.from);
    const from = at - (at - this.view.from) * real;
    this.look(from, from + length);
  }

  /** Moves the view by a part of its length. */
  pan(part) {
    const by = (this.view.to - this.view.from) * part;
    this.look(this.view.from + by, this.view.to + by);
  }

  /** Brings an item into view, with some room about it, and chooses it. */
  bring(id) {
    const { from, to } = this.items;
    const end = Math.min(to[id], this.picture.end);
    const room = Math.max((end - from[id]) * 0.5, this.picture.finest);
    this.look(from[id] - room, end + room);
    const arrow = this.arrowLanes(id);
    const top = arrow ? Math.min(arrow.source.top, arrow.target.top) : this.rowOf(id)?.top;
    if (top !== undefined) {
      const above = top - AXIS - LANE_GAP;
      const below = top + 60 - this.visible;
      const { scrollTop } = this.place;
      if (scrollTop > above || scrollTop < below) this.place.scrollTop = above;
    }
    this.choose(id);
  }

  choose(id) {
    this.chosen = id;
    this.talk.chosen(id);
    this.redraw();
  }

  /** Chooses the next of the items that are shown, or the one before, in the order in which they begin. */
  step(by) {
    if (!this.order) {
      const lists = [...this.rows()].map((row) => (row.lit || row.track).ids);
      lists.push(this.arrows.ids);
      const all = new Uint32Array(lists.reduce((sum, list) => sum + list.length, 0));
      let filled = 0;
      for (const list of lists) {
        all.set(list, filled);
        filled += list.length;
      }
      const { from } = this.items;
      this.order = all.sort((a, b) => from[a] - from[b] || a - b);
    }
    if (this.order.length === 0) return;
    let at = this.chosen === null ? -1 : this.order.indexOf(this.chosen);
    if (at < 0) at = firstNot(this.order.length, (i) => this.items.from[this.order[i]] < this.view.from) - (by > 0);
    const id = this.order[Math.min(Math.max(at + by, 0), this.order.length - 1)];
    const place = this.position(id);
    if (!place || place.x < GUTTER || place.x > this.width || place.y < AXIS || place.y > this.visible) {
      this.bring(id);
    } else {
      this.choose(id);
    }
  }

  // Drawing.

  redraw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = null;
      this.draw();
    });
  }

  colours() {
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    this.paint = {
      styles: this.picture.styles.map((it) => colour(it.colour)),
      page: colour('--page'),
      lane: colour('--lane'),
      line: colour('--line'),
      text: colour('--text'),
      faint: colour('--faint'),
      inBox: colour('--in-box'),
      mark: colour('--bad'),
      font: style.fontFamily,
    };
  }

  draw() {
    const began = performance.now();
    if (!this.paint) this.colours();
    const { context, paint } = this;
    context.globalAlpha = 1;
    context.clearRect(0, 0, this.width, this.visible);
    context.textBaseline = 'middle';
    const scrolled = this.place.scrollTop;
    context.save();
    context.translate(0, -scrolled);
    const seen = this.lanes.filter((it) => it.bottom > scrolled && it.top < scrolled + this.visible);
    context.fillStyle = paint.lane;
    for (const lane of seen) {
      for (const part of lane.parts) context.fillRect(GUTTER, part.top, this.width, part.bottom - part.top);
    }
    this.drawGrid(scrolled);
    for (const lane of seen) this.drawLane(lane);
    context.restore();
    this.drawArrows();
    this.drawOutline(this.hovered, 1);
    this.drawOutline(this.chosen, 2);
    this.drawNames(seen, scrolled);
    this.drawAxis();
    this.drawMarks();
    this.drawn.milliseconds = performance.now() - began;
    this.talk.moved();
  }

  drawLane(lane) {
    const { context } = this;
    this.drawTrack(lane.shades, lane.top - 2, lane.bottom - lane.top + 4, 0.22, false);
    for (const part of lane.parts) {
      for (const row of part.rows) {
        this.drawTrack(row.track, row.top, row.height - 1, row.lit ? 0.14 : 1, !row.lit);
        if (row.lit) this.drawTrack(row.lit, row.top, row.height - 1, 1, true);
      }
    }
    context.globalAlpha = 1;
  }

  /** Draws what is in view of `track`, in at most as many steps as it has boxes and columns of pixels. */
  drawTrack(track, top, height, alpha, withText) {
    const { context, items, paint, scale } = this;
    const { from, to, style } = items;
    const { ids, filled } = track;
    const end = track.begun(this.view.to);
    // Neighbouring columns that look alike become one rectangle.
    let merged = null;
    const flush = () => {
      if (!merged) return;
      context.globalAlpha = alpha * merged.fill;
      context.fillStyle = paint.styles[merged.style];
      context.fillRect(merged.x, top, merged.width, height);
      merged = null;
    };
    let i = track.notOver(this.view.from);
    while (i < end) {
      const id = ids[i];
      const left = Math.max(this.x(from[id]), GUTTER - 2);
      const width = Math.min(this.x(to[id]), this.width + 2) - left;
      if (width >= 1) {
        flush();
        context.globalAlpha = alpha;
        context.fillStyle = paint.styles[style[id]];
        // Leaves a gap to the next box, where there is room.
        context.fillRect(left, top, width > 4 ? width - 0.75 : width, height);
        if (withText && width >= TEXT_WIDTH && height >= 9) this.drawText(id, left, width, top, height);
        i += 1;
        continue;
      }
      const column = Math.floor(left);
      let next = Math.max(i + 1, track.begun(this.time(column + 1)));
      // The last item that begins in this column may be wide enough for a box of its own.
      if (next > i + 1 && (to[ids[next - 1]] - from[ids[next - 1]]) * scale >= 1) next -= 1;
      const share = to[id] === from[id] ? 1 : Math.min(1, (filled[next] - filled[i]) * scale);
      const fill = 0.4 + 0.6 * (Math.ceil(share * 4) / 4);
      if (merged && merged.x + merged.width === column && merged.style === style[id] && merged.fill === fill) {
        merged.width += 1;
      } else {
        flush();
        merged = { x: column, width: 1, style: style[id], fill };
      }
      i = next;
    }
    flush();
  }

  drawText(id, left, width, top, height) {
    const { context, paint } = this;
    const start = Math.max(left, GUTTER) + 3;
    const room = left + width - start - 3;
    const label = this.talk.label(id);
    context.font = `10px ${paint.font}`;
    // About the width of a letter; what does not fit is cut off.
    const letters = Math.floor(room / 5.2);
    if (letters < 2) return;
    context.globalAlpha = 1;
    context.fillStyle = paint.inBox;
    const text = label.length > letters ? `${label.slice(0, letters - 1)}…` : label;
    context.fillText(text, start, top + height / 2 + 0.5, room);
  }

  arrowLanes(id) {
    const { source, target } = this.picture.arrows;
    const from = this.lanes[source[id]];
    // A stub can point to where there is no lane.
    const to = this.lanes[target[id]] || from;
    return from ? { source: from.parts[0], target: to.parts[0] } : null;
  }

  /** Where an arrow starts and ends on the canvas; `null` if the item is not an arrow. */
  arrowEnds(id) {
    const lanes = this.arrowLanes(id);
    if (!lanes) return null;
    const { source, target } = lanes;
    const scrolled = this.place.scrollTop;
    const down = target.top > source.top;
    const isStub = this.picture.styles[this.items.style[id]].stub;
    const x0 = this.x(this.items.from[id]);
    const y0 = (down || source === target ? source.bottom : source.top) - scrolled;
    if (isStub) return { x0, y0, x1: x0 + 6, y1: y0 + (down ? 10 : -10), isStub };
    const y1 = (down ? target.top : target.bottom) - scrolled;
    return { x0, y0, x1: this.x(this.items.to[id]), y1, isStub };
  }

  drawArrows() {
    const { context, paint, arrows } = this;
    const end = arrows.begun(this.view.to);
    const inView = [];
    for (let i = arrows.notOver(this.view.from); i < end; i += 1) {
      if (this.items.to[arrows.ids[i]] >= this.view.from) inView.push(i);
    }
    const every = Math.max(1, Math.ceil(inView.length / MOST_ARROWS));
    this.shownArrows = [];
    for (const i of inView) {
      // Chosen by their place among all arrows, so that the same ones stay when the view moves.
      if (i % every !== 0) continue;
      const ends = this.arrowEnds(arrows.ids[i]);
      if (!ends) continue;
      const isAbove = Math.max(ends.y0, ends.y1) < AXIS;
      if (isAbove || Math.min(ends.y0, ends.y1) > this.visible) continue;
      this.shownArrows.push({ id: arrows.ids[i], ...ends });
    }
    this.drawn.arrows = this.shownArrows.length;
    this.drawn.every = every;
    context.save();
    context.beginPath();
    context.rect(GUTTER, AXIS, this.width - GUTTER, this.visible - AXIS);
    context.clip();
    const many = this.shownArrows.length;
    context.globalAlpha = many > 400 ? 0.3 : many > 120 ? 0.55 : 0.9;
    context.lineWidth = 1;
    const heads = many <= 400;
    for (let style = 0; style < paint.styles.length; style += 1) {
      const alike = this.shownArrows.filter((it) => this.items.style[it.id] === style);
      if (alike.length === 0) continue;
      context.strokeStyle = paint.styles[style];
      context.fillStyle = paint.styles[style];
      context.beginPath();
      for (const arrow of alike) this.traceArrow(arrow);
      context.stroke();
      if (heads) {
        context.beginPath();
        for (const arrow of alike) this.traceHead(arrow);
        context.fill();
      }
    }
    context.restore();
  }

  traceArrow({ x0, y0, x1, y1, isStub }) {
    const { context } = this;
    context.moveTo(x0, y0);
    if (y0 === y1) {
      context.quadraticCurveTo((x0 + x1) / 2, y0 + 10, x1, y1);
    } else {
      context.lineTo(x1, y1);
    }
    if (isStub) {
      context.moveTo(x1 - 3, y1 - 3);
      context.lineTo(x1 + 3, y1 + 3);
      context.moveTo(x1 + 3, y1 - 3);
      context.lineTo(x1 - 3, y1 + 3);
    }
  }

  traceHead({ x0, y0, x1, y1, isStub }) {
    if (isStub) return;
    const { context } = this;
    const angle = y0 === y1 ? -Math.PI / 4 : Math.atan2(y1 - y0, x1 - x0);
    context.moveTo(x1, y1);
    for (const side of [0.4, -0.4]) {
      context.lineTo(x1 - 6 * Math.cos(angle + side), y1 - 6 * Math.sin(angle + side));
    }
    context.closePath();
  }

  drawMarks() {
    const { context, paint } = this;
    context.fillStyle = paint.mark;
    for (const mark of this.picture.marks) {
      const x = this.x(mark.at);
      if (x < GUTTER || x > this.width) continue;
      context.fillRect(Math.round(x) - 0.5, AXIS, 1, this.visible);
      context.fillRect(Math.round(x) - 3, AXIS - 6, 6, 6);
    }
  }

  drawOutline(id, width) {
    if (id === null) return;
    const { context, paint } = this;
    context.globalAlpha = 1;
    context.lineWidth = width;
    context.strokeStyle = paint.text;
    const arrow = this.arrowEnds(id);
    context.save();
    context.beginPath();
    context.rect(GUTTER, AXIS, this.width - GUTTER, this.visible - AXIS);
    context.clip();
    context.beginPath();
    if (arrow) {
      context.lineWidth = width + 0.75;
      this.traceArrow(arrow);
    } else {
      const row = this.rowOf(id);
      if (row) {
        const left = this.x(this.items.from[id]);
        const right = Math.max(this.x(this.items.to[id]), left + 2);
        context.rect(left - 0.5, row.top - this.place.scrollTop - 0.5, right - left + 1, row.height);
      }
    }
    context.stroke();
    context.restore();
  }

  drawNames(seen, scrolled) {
    const { context, paint } = this;
    context.globalAlpha = 1;
    context.fillStyle = paint.page;
    context.fillRect(0, 0, GUTTER, this.visible);
    for (const lane of seen) {
      const [first] = lane.parts;
      context.fillStyle = paint.text;
      context.font = `600 11px ${paint.font}`;
      context.fillText(lane.name, 2, first.top - scrolled + 7, GUTTER - 40);
      context.fillStyle = paint.faint;
      context.font = `10px ${paint.font}`;
      context.textAlign = 'right';
      for (const part of lane.parts) {
        context.fillText(part.name, GUTTER - 6, part.top - scrolled + 7, 36);
      }
      context.textAlign = 'left';
    }
  }

  /** Times for the axis, and how far they are apart. */
  ticks() {
    const rough = ((this.view.to - this.view.from) * 110) / Math.max(110, this.width - GUTTER);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((it) => it * power).find((it) => it >= rough);
    const first = Math.ceil(this.view.from / step);
    const count = Math.floor(this.view.to / step) - first + 1;
    return { step, times: Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step) };
  }

  drawGrid(scrolled) {
    const { context, paint } = this;
    context.fillStyle = paint.line;
    for (const time of this.ticks().times) context.fillRect(Math.round(this.x(time)), scrolled, 1, this.visible);
  }

  drawAxis() {
    const { context, paint } = this;
    context.globalAlpha = 1;
    context.fillStyle = paint.page;
    context.fillRect(0, 0, this.width, AXIS);
    context.fillStyle = paint.faint;
    context.font = `10px ${paint.font}`;
    const { step, times } = this.ticks();
    for (const time of times) {
      const x = Math.round(this.x(time));
      const text = this.picture.tick(time, step);
      if (x >= GUTTER && x + context.measureText(text).width + 3 < this.width) context.fillText(text, x + 3, 9);
      if (x >= GUTTER) context.fillRect(x, 4, 1, AXIS - 4);
    }
  }

  // Pointer and keys.

  /** The item at a point of the canvas, or `null`. */
  at(x, y) {
    if (x < GUTTER || y < AXIS) return null;
    const inY = y + this.place.scrollTop;
    const reach = REACH / this.scale;
    const time = this.time(x);
    const { from, to } = this.items;
    const row = [...this.rows()].find((it) => inY >= it.top && inY < it.top + it.height);
    let best = null;
    let miss = Infinity;
    if (row) {
      const track = row.lit || row.track;
      const end = track.begun(time + reach);
      for (let i = track.notOver(time - reach); i < end; i += 1) {
        const id = track.ids[i];
        const by = Math.max(from[id] - time, time - to[id], 0);
        if (by <= miss) [best, miss] = [id, by];
      }
    }
    let near = REACH;
    for (const arrow of this.shownArrows || []) {
      const distance = distanceTo(arrow, x, y);
      // Where both are, the box is below the arrow.
      if (distance < near) [best, near] = [arrow.id, distance];
    }
    return best;
  }

  hover(x, y) {
    const id = this.at(x, y);
    if (id !== this.hovered) {
      this.hovered = id;
      this.redraw();
    }
    const marks = y < AXIS ? this.picture.marks.filter((it) => Math.abs(this.x(it.at) - x) <= 4) : [];
    const lines = id === null ? marks.map((it) => it.text) : this.talk.tell(id);
    this.tip.hidden = lines.length === 0;
    this.canvas.style.cursor = id === null ? 'grab' : 'pointer';
    this.tip.replaceChildren(
      ...lines.map((line) => {
        const div = document.createElement('div');
        div.textContent = line;
        return div;
      }),
    );
    if (this.tip.hidden) return;
    // Beside the pointer, on the side where there is room.
    const box = this.canvas.getBoundingClientRect();
    const [left, top] = [box.left + x, box.top + y];
    const tip = this.tip.getBoundingClientRect();
    const flipX = left + 14 + tip.width > document.documentElement.clientWidth;
    const flipY = top + 14 + tip.height > window.innerHeight;
    this.tip.style.left = `${Math.max(4, flipX ? left - 14 - tip.width : left + 14)}px`;
    this.tip.style.top = `${Math.max(4, flipY ? top - 14 - tip.height : top + 14)}px`;
  }

  leave() {
    this.hovered = null;
    this.tip.hidden = true;
    this.redraw();
  }

  listen() {
    const { canvas, place } = this;
    this.ended = new AbortController();
    const { signal } = this.ended;
    const on = (target, name, listener, options) =>
      target.addEventListener(name, listener, { signal, ...options });
    this.sizes = new ResizeObserver(() => {
      this.resize();
      this.draw();
    });
    this.sizes.observe(place);
    on(matchMedia('(prefers-color-scheme: dark)'), 'change', () => {
      this.paint = null;
      this.redraw();
    });
    on(place, 'scroll', () => this.leave());
    on(canvas, 'wheel', (event) => this.turned(event), { passive: false });
    on(canvas, 'pointerdown', (event) => {
      if (event.button === 0) this.drag = { x: event.clientX, y: event.clientY, moved: false };
    });
    on(canvas, 'pointermove', (event) => {
      if (this.drag) this.dragged(event);
      else this.hover(event.offsetX, event.offsetY);
    });
    on(canvas, 'pointerup', (event) => {
      if (this.drag && !this.drag.moved) this.choose(this.at(event.offsetX, event.offsetY));
      this.drag = null;
    });
    on(canvas, 'pointercancel', () => {
      this.drag = null;
    });
    on(canvas, 'pointerleave', () => this.leave());
    on(canvas, 'dblclick', (event) => {
      const id = this.at(event.offsetX, event.offsetY);
      if (id !== null) this.bring(id);
    });
    on(canvas, 'keydown', (event) => this.pressed(event));
  }

  turned(event) {
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.pan((((event.deltaX || event.deltaY) * lines) / this.width) * 0.8);
      return;
    }
    // With everything in view there is nothing to zoom out to: the wheel scrolls the page.
    const { from, to } = this.view;
    if (event.deltaY > 0 && to - from >= this.picture.end && !event.ctrlKey) return;
    event.preventDefault();
    this.zoom(Math.exp(event.deltaY * lines * 0.002), this.time(event.offsetX));
    this.hover(event.offsetX, event.offsetY);
  }

  dragged(event) {
    const { drag } = this;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moved && Math.hypot(dx, dy) < REACH) return;
    if (!drag.moved) this.canvas.setPointerCapture(event.pointerId);
    this.drag = { x: event.clientX, y: event.clientY, moved: true };
    this.tip.hidden = true;
    this.place.scrollTop -= dy;
    this.pan(-dx / Math.max(1, this.width - GUTTER));
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 0.8 : 0.15;
    const length = this.view.to - this.view.from;
    const deeds = {
      ArrowLeft: () => this.pan(-far),
      ArrowRight: () => this.pan(far),
      ArrowUp: () => this.place.scrollBy(0, -40),
      ArrowDown: () => this.place.scrollBy(0, 40),
      PageUp: () => this.place.scrollBy(0, -this.visible * 0.8),
      PageDown: () => this.place.scrollBy(0, this.visible * 0.8),
      Home: () => this.look(0, length),
      End: () => this.look(this.picture.end - length, this.picture.end),
      '+': () => this.zoom(0.6),
      '=': () => this.zoom(0.6),
      '-': () => this.zoom(1 / 0.6),
      0: () => this.look(0, this.picture.end),
      n: () => this.step(1),
      p: () => this.step(-1),
      Enter: () => this.chosen !== null && this.bring(this.chosen),
      Escape: () => this.choose(null),
    };
    const deed = deeds[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  }
}

/** How far a point is from an arrow. */
function distanceTo({ x0, y0, x1, y1 }, x, y) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const squared = dx * dx + dy * dy;
  const along = squared === 0 ? 0 : ((x - x0) * dx + (y - y0) * dy) / squared;
  const at = Math.min(1, Math.max(0, along));
  return Math.hypot(x - x0 - at * dx, y - y0 - at * dy);
}
