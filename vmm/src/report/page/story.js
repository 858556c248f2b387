'use strict';

/*
 * Shows a schedule as a space-time diagram: lanes of CPUs beside a list of all stops, in the order in which they
 * came. Strings in it can come from the guest; whatever is shown of them is shown as text.
 */

/** Height of a row; the style has the same. */
const ROW = 19;
const EDGE = 16;
/** Width of a lane, by the most CPUs up to which lanes are that wide. */
const LANE_WIDTHS = [[8, 34], [32, 22], [Infinity, 14]];
/** If there are more stops than this, only those at words that CPUs share are shown at first. */
const MANY = 300;

const wordAddress = (word) => `0x${word.toString(16)}`;
/** A function without its type parameters, which can be longer than a line. */
const shortName = (name) => {
  const [, closure, rest] = /^(closure in )?(.*)$/s.exec(name);
  if (rest.startsWith('<')) return name;
  let [short, before] = [rest, null];
  while (short !== before) [short, before] = [short.replace(/<(?!impl )[^<>]*>/g, ''), short];
  return (closure ?? '') + short;
};

/** All stops of a story in their order, and the words they are about. */
class Stops {
  constructor(story) {
    this.list = story.scenes.flatMap((scene, turn) =>
      scene.beats.map((beat, at) => ({
        ...beat,
        words: beat.words.map((word) => word.address),
        turn,
        at,
        cpu: scene.cpu,
        isLast: at === scene.beats.length - 1,
      })),
    );
    this.words = new Map();
    // By address. A CPU that waits for any part of a word to change names all parts; an access names one.
    this.names = new Map();
    const known = story.scenes.flatMap((scene) => scene.beats.flatMap((beat) => beat.words)).filter((word) => word.name !== null);
    for (const { address, name } of known) {
      if (!this.names.has(address) || name.length < this.names.get(address).length) this.names.set(address, name);
    }
    this.list.forEach((stop, id) => {
      stop.id = id;
      for (const word of stop.words) {
        if (!this.words.has(word)) this.words.set(word, []);
        this.words.get(word).push(id);
      }
    });
  }

  /** A word by its name, if it has one, and by its address. */
  wordName(word) {
    const name = this.names.get(word);
    return name === undefined ? wordAddress(word) : `${name} (${wordAddress(word)})`;
  }

  cpus(word) {
    return [...new Set(this.words.get(word).map((id) => this.list[id].cpu))].sort((a, b) => a - b);
  }

  /** Words that one CPU changes and another accesses. */
  shared() {
    const isChanged = (ids) => ids.some((id) => this.list[id].writes);
    return [...this.words].filter(([word, ids]) => isChanged(ids) && this.cpus(word).length > 1).map(([word]) => word);
  }
}

class Diagram {
  /**
   * Draws `story` in `place`. `traffic` has a text on the interrupts of each turn. `tell(stop)` is called with the
   * stop that is looked at, or `null`.
   */
  constructor(place, story, traffic, tell) {
    this.place = place;
    this.story = story;
    this.traffic = traffic;
    this.tell = tell;
    this.stops = new Stops(story);
    this.shared = new Set(this.stops.shared());
    this.kept = null;
    this.listen();
  }

  /** Whether a stop is drawn. */
  isShown(stop) {
    if (this.which === 'all' || stop.isLast) return true;
    return this.which === 'shared' && (stop.sends !== null || stop.words.some((word) => this.shared.has(word)));
  }

  x(cpu) {
    return EDGE + cpu * this.step;
  }

  /** The middle of a row. */
  y(row) {
    return (row + 0.5) * ROW;
  }

  /** Draws `which` of the stops: `all`, `shared` or `turns`. */
  draw(which) {
    this.which = which;
    const { story } = this;
    const width = LANE_WIDTHS.find(([cpus]) => story.cpus <= cpus)[1];
    this.step = width;
    this.rows = [];
    // By turn its first and last row, and by stop its row.
    this.boxes = [];
    this.marked = [];
    this.rowOf = new Map();
    this.elements = new Map();
    this.dots = new Map();
    // The first row is for the names of the CPUs.
    this.rows.push(element('div', { className: 'row' }));
    for (const [turn, scene] of story.scenes.entries()) this.addTurn(scene, turn);
    const end = this.rows.length;
    for (const text of story.texts) this.rows.push(element('div', { className: 'row end', textContent: text }));
    if (story.texts.length === 0) this.rows.push(element('div', { className: 'row' }));
    const widest = (name) => Math.max(0, ...this.stops.list.map((stop) => stop[name].length));
    const lanes = this.x(story.cpus - 1) + EDGE + 4;
    for (const [name, value] of [['lanes', `${lanes}px`], ['what', `${widest('what')}ch`], ['place', `${widest('place')}ch`]]) {
      this.place.style.setProperty(`--${name}`, value);
    }
    this.place.replaceChildren(this.drawLanes(lanes, end), ...this.rows);
    this.light(this.kept);
  }

  addTurn(scene, turn) {
    const from = scene.sent_by.map((at) => `turn ${at.scene + 1} of CPU ${this.story.scenes[at.scene].cpu}`);
    const detail = `  ${from.length > 0 ? `from ${from.join(', ')}; ` : ''}${some(scene.beats.length, 'stop')}`;
    const first = this.rows.length;
    this.rows.push(
      element('div', { className: 'row turn' }, `${turn + 1}  CPU ${scene.cpu} ${this.traffic[turn]}`, element('span', { textContent: detail })),
    );
    for (const stop of this.stops.list.filter((it) => it.turn === turn)) {
      // What the CPU does on its way to the stop.
      for (const { at, text } of this.story.marks.filter((mark) => mark.at.scene === turn && mark.at.beat === stop.at)) {
        this.marked.push({ row: this.rows.length, cpu: scene.cpu });
        this.rows.push(element('div', { className: 'row mark', textContent: text }));
      }
      if (!this.isShown(stop)) continue;
      const row = element(
        'div',
        { className: `row stop${stop.isLast ? ' last' : ''}` },
        element('span', { className: 'what', textContent: stop.what }),
        element('span', { className: 'place', textContent: stop.place }),
        element('span', { className: 'function', textContent: shortName(stop.function) }),
      );
      row.dataset.id = stop.id;
      this.rowOf.set(stop.id, this.rows.length);
      this.elements.set(stop.id, row);
      this.rows.push(row);
    }
    this.boxes.push({ first, last: this.rows.length - 1, cpu: scene.cpu });
  }

  drawLanes(width, end) {
    const { story } = this;
    const height = this.rows.length * ROW;
    const picture = svg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
    const bottom = this.y(end) + (this.rows.length - end - 1) * ROW;
    const every = this.step < 20 ? 4 : 1;
    for (let cpu = 0; cpu < story.cpus; cpu += 1) {
      const x = this.x(cpu);
      if (cpu % every === 0) picture.append(svg('text', { class: 'name', x, y: 14, 'text-anchor': 'middle' }, `${cpu}`));
      picture.append(svg('line', { class: 'lane', x1: x, x2: x, y1: ROW, y2: bottom }));
    }
    for (const { first, last, cpu } of this.boxes) {
      const [x, y] = [this.x(cpu) - 5, first * ROW + 4];
      picture.append(svg('rect', { class: 'box', x, y, width: 10, height: (last - first + 1) * ROW - 6, rx: 4 }));
    }
    for (const [id, row] of this.rowOf) {
      const stop = this.stops.list[id];
      const dot = svg('circle', { class: stop.in_handler ? 'handler' : 'task', cx: this.x(stop.cpu), cy: this.y(row), r: 3 });
      this.dots.set(id, dot);
      picture.append(dot);
    }
    for (const { row, cpu } of this.marked) {
      picture.append(svg('path', { class: 'mark', d: `M${this.x(cpu)},${this.y(row) - 6}l6,6l-6,6l-6,-6z` }));
    }
    this.drawIpis(picture, bottom);
    this.drawStores(picture);
    if (story.breaks.length > 0) {
      for (let cpu = 0; cpu < story.cpus; cpu += 1) {
        const [x, y] = [this.x(cpu), bottom];
        picture.append(svg('path', { class: 'broken', d: `M${x - 4},${y - 4}l8,8m0,-8l-8,8` }));
      }
    }
    return picture;
  }

  /** Where the row of a stop is, or that of its turn if it is not shown. */
  rowFor(at) {
    const stop = this.stops.list.find((it) => it.turn === at.scene && it.at === at.beat);
    return this.rowOf.get(stop.id) ?? this.boxes[at.scene].first;
  }

  drawIpis(picture, bottom) {
    const { scenes } = this.story;
    const answered = new Set();
    const ipi = (source, target, from, to, isTaken) => {
      const [x0, lane] = [this.x(source), this.x(target)];
      // Beside the lane, on the side it comes from.
      const side = x0 <= lane ? -1 : 1;
      const x1 = lane + side * 9;
      const [y0, y1] = [this.y(from), isTaken ? this.y(to) - 2 : bottom];
      const end = isTaken ? `L${x1},${y1 - 3}q0,3 ${-side * 3},3` : `L${x1},${y1 - 10}`;
      picture.append(svg('path', { class: 'ipi', d: `M${x0},${y0}L${x1 + side * 4},${y0}q${-side * 4},0 ${-side * 4},4${end}` }));
      if (isTaken) picture.append(svg('path', { class: 'head', d: `M${lane - -side * 4},${y1}l${side * 5},-4v8z` }));
    };
    scenes.forEach((scene, turn) => {
      for (const at of scene.sent_by) {
        answered.add(`${at.scene},${at.beat}`);
        ipi(scenes[at.scene].cpu, scene.cpu, this.rowFor(at), this.boxes[turn].first, true);
      }
    });
    for (const stop of this.stops.list) {
      if (stop.sends && !answered.has(`${stop.turn},${stop.at}`)) {
        ipi(stop.cpu, stop.sends.target, this.rowFor({ scene: stop.turn, beat: stop.at }), null, false);
      }
    }
  }

  /** Beside the lane of its CPU, how long each store has waited in the store buffer. */
  drawStores(picture) {
    for (const stop of this.stops.list) {
      for (const { issued } of stop.flushed.filter((it) => it.issued !== null)) {
        const to = this.rowOf.get(stop.id) ?? this.boxes[stop.turn].first;
        const [x, y0, y1] = [this.x(stop.cpu), this.y(this.rowFor(issued)), this.y(to)];
        picture.append(svg('path', { class: 'store', d: `M${x + 3},${y0}h2q3,0 3,3V${y1 - 3}q0,3 -3,3` }));
        picture.append(svg('path', { class: 'reached', d: `M${x + 3},${y1}l5,-4v8z` }));
      }
    }
  }

  /** Highlights the stop that is looked at, and all stops at the same word. */
  light(id) {
    this.looked = id;
    const stop = id === null ? null : this.stops.list[id];
    const same = new Set(stop ? stop.words.flatMap((word) => this.stops.words.get(word)) : []);
    for (const [other, row] of this.elements) {
      row.classList.toggle('lit', same.has(other));
      row.classList.toggle('at', other === this.kept);
      this.dots.get(other).classList.toggle('lit', same.has(other) || other === id);
    }
    this.tell(stop);
  }

  keep(id) {
    this.kept = id;
    this.light(id);
    if (id !== null) this.elements.get(id)?.scrollIntoView({ block: 'nearest' });
  }

  /** Goes to the stop that comes `by` after the one that is kept, of `ids`, which are shown. */
  go(ids, by) {
    if (ids.length === 0) return;
    const at = ids.indexOf(this.kept);
    const next = at < 0 ? (by > 0 ? 0 : ids.length - 1) : Math.min(ids.length - 1, Math.max(0, at + by));
    this.keep(ids[next]);
  }

  listen() {
    const idOf = (event) => {
      const row = event.target.closest('.stop');
      return row ? Number(row.dataset.id) : null;
    };
    this.place.addEventListener('pointerover', (event) => this.light(idOf(event) ?? this.kept));
    this.place.addEventListener('pointerleave', () => this.light(this.kept));
    this.place.addEventListener('click', (event) => this.keep(idOf(event)));
    this.place.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const drawn = [...this.rowOf.keys()];
      const words = this.kept === null ? [] : this.stops.list[this.kept].words;
      const same = () => drawn.filter((id) => words.some((word) => this.stops.list[id].words.includes(word)));
      const deed = {
        ArrowDown: () => this.go(drawn, 1),
        ArrowUp: () => this.go(drawn, -1),
        n: () => this.go(same(), 1),
        p: () => this.go(same(), -1),
        Escape: () => this.keep(null),
      }[event.key];
      if (!deed) return;
      event.preventDefault();
      deed();
    });
  }
}

/** For tests. */
const shown = {};

function tellStop(stop) {
  const told = byId('told');
  if (!stop) {
    told.textContent = '\u00a0';
    return;
  }
  const { stops } = shown.diagram;
  const meets = stop.words.map((word) => {
    const ids = stops.words.get(word);
    return `${some(ids.length, 'stop')} of CPU ${stops.cpus(word).join(', ')} at ${stops.wordName(word)}`;
  });
  const context = stop.in_handler ? 'in a handler' : 'in its task';
  const parts = [`CPU ${stop.cpu}, turn ${stop.turn + 1}, stop ${stop.at + 1}, ${context}: ${stop.what}`, stop.place, stop.function, ...meets];
  told.textContent = parts.filter(Boolean).join(' · ');
}

function showSchedule({ story, traffic, schedule, guest }) {
  const name = 'schedule.json';
  byId('replay').hidden = false;
  byId('command').textContent = `vmm replay ${name} ${guest} --times 1000`;
  byId('save').onclick = () => {
    const file = new Blob([JSON.stringify(schedule, null, 2), '\n'], { type: 'application/json' });
    const link = element('a', { href: URL.createObjectURL(file), download: name });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  byId('schedule').hidden = false;
  const kinds = [
    ['task', 'in a task'],
    ['handler', 'in a handler'],
    ['ipi', 'IPI, pending until it is taken'],
  ];
  const waits = ({ flushed }) => flushed.some(({ issued }) => issued !== null);
  if (story.scenes.some(({ beats }) => beats.some(waits))) kinds.push(['store', 'store, in the store buffer until it reaches memory']);
  for (const [kind, text] of kinds) {
    byId('legend').append(element('span', {}, element('i', { className: kind }), text));
  }
  shown.diagram = new Diagram(byId('diagram'), story, traffic, tellStop);
  const { stops, shared } = shown.diagram;
  const which = byId('which');
  which.value = stops.list.length > MANY ? 'shared' : 'all';
  which.onchange = () => {
    shown.diagram.draw(which.value);
    const drawn = shown.diagram.rowOf.size;
    byId('size').value = `${some(story.scenes.length, 'turn')}, ${drawn < stops.list.length ? `${count(drawn)} of ` : ''}${some(stops.list.length, 'stop')}`;
  };
  which.onchange();
  showWords(stops, [...shared].sort((a, b) => a - b));
}

function showWords(stops, shared) {
  byId('word-section').hidden = shared.length === 0;
  table(
    'words',
    ['word', element('th', { textContent: 'at', className: 'words' }), 'stops', 'that change it', element('th', { textContent: 'CPUs', className: 'words' }), element('th', { textContent: 'first', className: 'words' })],
    shared.map((word) => {
      const ids = stops.words.get(word);
      const { place, what } = stops.list[ids[0]];
      const show = element('button', { type: 'button', textContent: stops.names.get(word) ?? wordAddress(word) });
      show.onclick = () => {
        const drawn = ids.find((id) => shown.diagram.rowOf.has(id));
        byId('diagram').focus();
        shown.diagram.keep(drawn ?? ids[0]);
      };
      const changes = ids.filter((id) => stops.list[id].writes).length;
      return [element('td', {}, show), words(wordAddress(word)), figure(ids.length), figure(changes), words(stops.cpus(word).join(', ')), words(`${what}  ${place}`)];
    }),
  );
}

function show(it) {
  shown.document = it;
  document.title = `${it.verdict.split(/[:(]/)[0].trim()}: ${it.what}`;
  byId('what').textContent = it.what;
  byId('result').textContent = it.verdict;
  byId('result').className = it.tone;
  byId('broke').replaceChildren(...(it.story?.texts || []).map((text) => element('li', { textContent: text })));
  byId('case').textContent = it.case;
  const isNamed = it.facts.some(([name]) => name === 'guest');
  const facts = isNamed ? it.facts : [['guest', it.guest], ...it.facts];
  showFacts(facts.filter(([, value]) => value !== ''));
  if (it.story) showSchedule(it);
}

show(JSON.parse(byId('story').textContent));
