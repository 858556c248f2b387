'use strict';

/*
 * Shows the machines whose documents are in this page, one at a time. Strings in them come from the guest or from
 * scripts; whatever is shown of them is shown as text.
 */

/** The kinds that every timeline has. Their numbers are those of the picture's styles; the guest's lanes follow. */
const KINDS = [
  { name: 'interrupt', colour: '--handler' },
  { name: 'run', colour: '--run' },
  { name: 'point', colour: '--run' },
  { name: 'IPI', colour: '--ipi' },
  { name: 'IPI without handler', colour: '--bad', stub: true },
  { name: 'paused', colour: '--paused' },
  { name: 'held', colour: '--held' },
  { name: 'exit', colour: '--exit' },
  { name: 'waiting', colour: '--waiting' },
  { name: 'driven', colour: '--faint' },
];
const KIND = Object.fromEntries(KINDS.map((kind, number) => [kind.name, number]));
const STALLS = [KIND.paused, KIND.held];

/** Number of colours for lanes; further lanes use them again from the first. */
const LANE_COLOURS = 6;

/** Boxes that nest deeper share the last row. */
const MOST_ROWS = 6;
const ROW = { guest: 14, run: 6, host: 8 };

/** Entries of each kind in "What took longest". */
const LONGEST = 3;

/** Most CPUs for which the latencies of pairs are shown as a table. */
const MOST_IN_MATRIX = 32;

// Figures.

const UNITS = [['s', 1e9], ['ms', 1e6], ['µs', 1e3], ['ns', 1]];

/**
 * The unit for times that stand together, in a table or at an axis: the largest in which the middle one of them is at
 * least 1. `figure` has as many digits for each as show the shortest of them, but three at most; `plain` has only
 * digits that say something, and the unit.
 */
function unitOf(times) {
  const sorted = times.filter((ns) => ns > 0).sort((a, b) => a - b);
  const [low, middle] = [sorted[0] ?? 1, sorted[Math.floor((sorted.length - 1) / 2)] ?? 1];
  const [name, size] = UNITS.find(([, it]) => middle >= it) || ['ns', 1];
  const digits = size === 1 ? 0 : Math.min(3, Math.max(0, 1 - Math.floor(Math.log10(low / size) + 1e-9)));
  const least = 10 ** -digits;
  const text = (value, options) => value.toLocaleString('en', options);
  return {
    name,
    figure: (ns) => {
      const isTooShort = ns > 0 && ns / size < least / 2;
      const shown = text(isTooShort ? least : ns / size, { minimumFractionDigits: digits, maximumFractionDigits: digits });
      return isTooShort ? `< ${shown}` : shown;
    },
    plain: (ns) => `${text(ns / size, { maximumSignificantDigits: 3 })} ${name}`,
  };
}

/** A time with three digits. */
function duration(ns) {
  const [unit, size] = UNITS.find(([, it]) => ns >= it) || ['ns', 1];
  const value = ns / size;
  const digits = value >= 100 || unit === 'ns' ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${unit}`;
}


/** A time on the axis, to a part of `step`. */
function moment(ns, step) {
  const [unit, size] = step >= 1e8 ? ['s', 1e9] : step >= 1e6 ? ['ms', 1e6] : step >= 1e3 ? ['µs', 1e3] : ['ns', 1];
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  return `${(ns / size).toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${unit}`;
}

// The timeline.

/** The events of a document as items of a picture, with what else is known of each. */
class Timeline {
  constructor({ tsc_khz: khz, words, lanes, runs, length, cpus, ipis, marks, driven }) {
    const ns = (cycles) => (cycles * 1e6) / Math.max(1, khz);
    const lists = cpus.flatMap((cpu) => [cpu.guest, cpu.steps, cpu.host]).concat(ipis, driven);
    const total = lists.reduce((sum, list) => sum + list.from.length, 0);
    this.total = total;
    this.words = words;
    this.from = new Float64Array(total);
    this.to = new Float64Array(total);
    this.style = new Uint16Array(total);
    this.name = new Uint32Array(total);
    this.call = new Uint32Array(total);
    this.cpu = new Int32Array(total);
    this.source = new Int32Array(total).fill(-1);
    this.target = new Int32Array(total).fill(-1);
    this.end = Math.max(ns(length), 1);
    this.marks = marks.map(({ at, text }) => ({ at: ns(at), text }));

    const ofLanes = lanes.map((name, lane) => ({ name, colour: `--lane-${1 + (lane % LANE_COLOURS)}` }));
    this.kinds = [...KINDS, ...ofLanes];
    this.firstLane = KINDS.length;
    this.numbers = new Map(this.kinds.map(({ name }, number) => [name, number]));
    const kinds = words.map((word) => this.numberOf(word));
    const areRuns = new Set(runs);
    let next = 0;
    // Adds the items of one list, in which each time is the distance from the one before.
    const add = (list, cpu, styleOf) => {
      const ids = new Uint32Array(list.from.length);
      let from = 0;
      for (let i = 0; i < ids.length; i += 1) {
        const id = next + i;
        from += list.from[i];
        this.from[id] = ns(from);
        this.to[id] = ns(from + (list.length?.[i] || 0));
        this.name[id] = list.name[i];
        this.call[id] = list.call[i];
        this.style[id] = styleOf(list, i);
        this.cpu[id] = cpu;
        ids[i] = id;
      }
      next += ids.length;
      return ids;
    };
    const ofKind = (list, i) => kinds[list.kind[i]];
    this.drivers = driven.map(({ lane }) => lane);
    const ofCpus = cpus.map((cpu, number) => {
      const guest = add(cpu.guest, number, ofKind);
      const steps = add(cpu.steps, number, (list, i) => (areRuns.has(list.name[i]) ? KIND.run : KIND.point));
      const host = add(cpu.host, number, ofKind);
      return {
        name: `CPU ${number}`,
        parts: [
          { name: 'guest', rows: [...this.nested(guest, ROW.guest), { ids: steps, height: ROW.run }] },
          { name: 'host', rows: this.nested(host, ROW.host) },
        ],
        shades: host.filter((id) => STALLS.includes(this.style[id])),
      };
    });
    this.lanes = [...driverLanes(driven, add, (ids, height) => this.nested(ids, height)), ...ofCpus];
    const sent = add(ipis, -1, (list, i) => (list.length[i] === null ? KIND['IPI without handler'] : KIND.IPI));
    sent.forEach((id, i) => {
      this.source[id] = ipis.source[i];
      this.target[id] = ipis.target[i];
    });
    this.ipis = sent.sort((a, b) => this.from[a] - this.from[b]);
  }

  /** The number of a kind, by its name. */
  numberOf(name) {
    return this.numbers.get(name);
  }

  /** Rows of boxes, each within one of the row above. */
  nested(ids, height) {
    const rows = [[]];
    const ends = [];
    for (const id of ids) {
      while (ends.length > 0 && ends[ends.length - 1] <= this.from[id]) ends.pop();
      const depth = Math.min(ends.length, MOST_ROWS - 1);
      ends.push(this.to[id]);
      (rows[depth] ||= []).push(id);
    }
    return rows.map((row) => ({ ids: Uint32Array.from(row), height }));
  }

  picture() {
    return {
      end: this.end,
      finest: Math.min(50, this.end),
      tick: moment,
      items: this,
      styles: this.kinds,
      lanes: this.lanes,
      arrows: { ids: this.ipis, source: this.laneOf(this.source), target: this.laneOf(this.target) },
      marks: this.marks,
    };
  }

  /** The lanes of CPUs. */
  laneOf(cpus) {
    return cpus.map((cpu) => (cpu < 0 ? cpu : cpu + this.drivers.length));
  }

  label(id) {
    const call = this.words[this.call[id]];
    return call ? `${this.words[this.name[id]]} ${call.replace('call ', '')}` : this.words[this.name[id]];
  }

  where(id) {
    if (this.cpu[id] >= 0) return `CPU ${this.cpu[id]}`;
    const driver = driverOf(this.cpu[id]);
    if (driver !== undefined) return this.drivers[driver];
    return `CPU ${this.source[id]} → CPU ${this.target[id]}`;
  }

  took(id) {
    const length = duration(this.to[id] - this.from[id]);
    switch (this.style[id]) {
      case KIND.run:
        return 'the function begins to run';
      case KIND.point:
        return 'it came to this point';
      case KIND.IPI:
        return `handler after ${length}`;
      case KIND['IPI without handler']:
        return 'no handler in the trace';
      default:
        return `for ${length}`;
    }
  }

  tell(id) {
    const call = this.words[this.call[id]];
    // In the unit of its length.
    const length = this.to[id] - this.from[id];
    const [unit, size] = UNITS.find(([, it]) => length >= it) || ['µs', 1e3];
    const began = (this.from[id] / size).toLocaleString('en', { maximumFractionDigits: size === 1e9 ? 6 : 3 });
    const at = `at ${began} ${unit}, ${this.took(id)}`;
    return [`${this.words[this.name[id]]}${call ? `, ${call}` : ''}`, this.where(id), at];
  }

  /** The items that match `text`: those of a call, or those with the text in their names. */
  meant(text) {
    const wanted = text.trim().toLowerCase();
    const isCall = /^(call )?\d+:\d+:\d+$/.test(wanted);
    const call = wanted.startsWith('call ') ? wanted : `call ${wanted}`;
    const isMeant = this.words.map((word) => (isCall ? word === call : word.toLowerCase().includes(wanted)));
    const meant = new Uint8Array(this.total);
    for (let id = 0; id < this.total; id += 1) {
      meant[id] = isMeant[this.call[id]] || (!isCall && isMeant[this.name[id]]) ? 1 : 0;
    }
    if (isCall) this.addHandlers(meant);
    return meant;
  }

  /** A handler belongs to the calls whose functions run in it. */
  addHandlers(meant) {
    for (const lane of this.lanes) {
      const { rows } = lane.parts[0];
      const steps = rows[rows.length - 1].ids.filter((id) => meant[id]);
      for (const { ids } of rows.slice(0, -1)) {
        for (const step of steps) {
          const at = firstNot(ids.length, (i) => this.from[ids[i]] <= this.from[step]) - 1;
          if (at >= 0 && this.to[ids[at]] >= this.from[step]) meant[ids[at]] = 1;
        }
      }
    }
  }

  /** The longest of a kind, the longest first. */
  longest(kind) {
    const found = [];
    for (let id = 0; id < this.total; id += 1) {
      if (this.style[id] !== kind) continue;
      const length = this.to[id] - this.from[id];
      if (found.length === LONGEST && length <= found[LONGEST - 1].length) continue;
      const at = firstNot(found.length, (i) => found[i].length >= length);
      found.splice(at, 0, { id, length });
      found.length = Math.min(found.length, LONGEST);
    }
    return found.map(({ id }) => id);
  }
}

/** What the page shows now, and after how many milliseconds it was first drawn; for tests. */
const shown = { machine: null, timeline: null, chart: null, histograms: null, firstPicture: null };

function showTimeline(machine) {
  shown.chart?.close();
  shown.chart = null;
  shown.timeline = machine.timeline && new Timeline(machine.timeline);
  const { timeline } = shown;
  const leftOut = timeline ? machine.timeline.left_out : 0;
  byId('left-out').hidden = leftOut === 0;
  byId('left-out').textContent = `${some(leftOut, 'event')} that began last ${leftOut === 1 ? 'is' : 'are'} not on this page; --trace has all.`;
  byId('timeline').hidden = !timeline;
  byId('no-timeline').hidden = Boolean(timeline);
  if (!timeline) return;

  const hidden = new Set();
  const told = byId('told');
  const tellChosen = (id) => {
    if (id === null) {
      told.replaceChildren('\u00a0');
      return;
    }
    const text = timeline.tell(id).join(' · ');
    const call = timeline.words[timeline.call[id]];
    const only = element('button', { type: 'button', textContent: `only ${call}` });
    only.onclick = () => {
      byId('filter').value = call;
      filter();
    };
    told.replaceChildren(text, ...(call ? [' ', only] : []));
  };
  const chart = new Lanes(byId('lanes'), timeline.picture(), {
    label: (id) => timeline.label(id),
    tell: (id) => timeline.tell(id),
    chosen: tellChosen,
    moved: () => {
      shown.firstPicture ??= performance.now();
      tellRange(chart);
    },
  });
  shown.chart = chart;
  chart.canvas.setAttribute('role', 'application');
  chart.canvas.setAttribute(
    'aria-label',
    `Timeline of ${timeline.lanes.length - timeline.drivers.length} vCPUs over ${duration(timeline.end)}. The tables below say the same in figures; ` +
      'the keys n and p go through its events.',
  );

  const filter = () => {
    const text = byId('filter').value;
    const meant = text.trim() === '' ? null : timeline.meant(text);
    chart.show((id) => !hidden.has(timeline.style[id]), meant && ((id) => meant[id] === 1));
  };
  byId('filter').value = '';
  byId('filter').oninput = filter;
  byId('zoom-in').onclick = () => chart.zoom(0.5);
  byId('zoom-out').onclick = () => chart.zoom(2);
  byId('whole').onclick = () => chart.look(0, timeline.end);

  const counts = timeline.kinds.map(() => 0);
  for (const style of timeline.style) counts[style] += 1;
  byId('legend').replaceChildren();
  // The guest's lanes come first.
  const numbers = [...timeline.kinds.keys()];
  [...numbers.slice(timeline.firstLane), ...numbers.slice(0, timeline.firstLane)].forEach((number) => {
    const kind = timeline.kinds[number];
    if (counts[number] === 0) return;
    const swatch = element('i');
    swatch.style.background = `var(${kind.colour})`;
    const button = element('button', { type: 'button' }, swatch, `${kind.name} ${count(counts[number])}`);
    button.setAttribute('aria-pressed', 'true');
    button.onclick = () => {
      if (!hidden.delete(number)) hidden.add(number);
      button.setAttribute('aria-pressed', String(!hidden.has(number)));
      filter();
    };
    byId('legend').append(button);
  });
  if (timeline.marks.length > 0) {
    const pin = svg('svg', { class: 'pin', width: 9, height: 14, 'aria-hidden': 'true' });
    pin.append(svg('rect', { x: 1.5, y: 1, width: 6, height: 6 }), svg('rect', { x: 4, y: 1, width: 1, height: 13 }));
    const title = 'Where the guest found something; the pointer on a pin says what';
    byId('legend').append(element('span', { className: 'pins', title }, pin, some(timeline.marks.length, 'finding')));
  }
}

function tellRange({ view, drawn }) {
  const step = (view.to - view.from) / 100;
  const one = drawn.every > 1 ? `, 1 IPI in ${count(drawn.every)}` : '';
  byId('range').value = `${moment(view.from, step)} to ${moment(view.to, step)} (${moment(view.to - view.from, step)}${one})`;
}

// The rest of the page.

/** Whether a run was ended from outside, which says nothing of the guest. */
const isOpen = (report) => report.time_limit_reached || report.result === 'interrupted';

/** How a run ended, in a word or two. */
const ended = (report) => (report.time_limit_reached ? 'time limit reached' : report.result);

function showVerdict({ report, what, provenance, command_line: commandLine }) {
  byId('what').textContent = what;
  byId('result').textContent = ended(report);
  byId('result').className = report.result === 'pass' ? 'good' : isOpen(report) ? '' : 'bad';
  byId('message').textContent = report.message;
  const { calls, ipi, trace, stalls, cpus_online: online } = report;
  const { boot_seconds: booted, run_seconds: ran } = report;
  const unit = unitOf([booted ?? ran, ran].map((seconds) => seconds * 1e9));
  const time = (seconds) => `${unit.figure(seconds * 1e9)} ${unit.name}`;
  const boot = booted === null ? '' : `boot ${time(booted)}, `;
  const facts = [
    ...provenance,
    ['command line', commandLine],
    ['vCPUs', `${report.vcpus}${online === null || online === report.vcpus ? '' : `, of which ${online} came up`}`],
    ['time', `${boot}${report.window} ${time(ran)}`],
    ['calls', `${count(calls.made)} made, ${count(calls.executed)} of ${some(calls.expected, 'execution')}${judgedBy(calls)}`],
    ['IPIs', `${count(ipi.sent)} sent (${transports(ipi)}) to ${some(ipi.targets, 'target')}, ${count(ipi.received)} received, ${count(ipi.received_empty)} found nothing to do${notReceived(ipi)}`],
  ];
  const exits = ipi.exits_per_ipi === null ? `not known (${ipi.exits_unknown})` : `${ipi.exits_per_ipi.toFixed(1)} (${ipi.exits_source}; ${report.window})`;
  facts.push(['exits/IPI', exits]);
  if (stalls) facts.push(['stalls', `${count(stalls.count)}, ${duration(stalls.away_seconds * 1e9)} in all`]);
  if (trace) facts.push(['trace', `${some(trace.records, 'event')}, ${count(trace.dropped)} dropped`]);
  showFacts(facts);
}

function judgedBy({ made, judged }) {
  return judged > 0 && judged < made ? `; the last ${count(judged)} judged by the VMM, those before them by the guest` : '';
}

function transports({ by_transport: by }) {
  const used = Object.entries(by).filter(([, sent]) => sent > 0);
  return used.map(([name, sent]) => `${count(sent)} ${name}`).join(', ') || 'none';
}

function showTrouble({ report, post_mortem: postMortem }) {
  const lists = [
    ['Not to be believed', report.contradictions, report.contradictions_made],
    [`Found by the guest, ${byOracle(report.findings_by_oracle)}`, report.findings.map((it) => it.text), report.findings_made],
    [`Found in the ledger, ${byOracle(report.breaches_by_oracle)}`, report.breaches.map((it) => it.text), report.breaches_made],
    ['Open calls', report.open_calls, report.open_calls_made],
    ['Notes', report.notes, report.notes.length],
  ].filter(([, , made]) => made > 0);
  byId('lists').replaceChildren(
    ...lists.flatMap(([title, entries, made]) => [
      element('h3', { textContent: made > entries.length ? `${title}: the first of ${count(made)}` : title }),
      element('ul', {}, ...entries.map((text) => element('li', { textContent: text }))),
    ]),
  );
  byId('post-mortem').hidden = postMortem === '';
  byId('post-mortem').open = !isOpen(report);
  byId('post-mortem').querySelector('pre').textContent = postMortem;
  byId('trouble').hidden = lists.length === 0 && postMortem === '';
}

function byOracle(counts) {
  return Object.entries(counts).map(([oracle, found]) => `${count(found)} ${oracle}`).join(', ');
}

function notReceived({ coalesced, lost, dropped, to_nobody: toNobody, in_flight: inFlight, pending, added }) {
  const fates = [
    [coalesced, 'coalesced'], [lost, 'lost'], [dropped, 'dropped by the local APIC of a CPU that was being started'],
    [toNobody, 'to CPUs that do not exist'], [inFlight, 'on the wire'], [pending, 'pending'],
  ];
  const told = fates.filter(([number]) => number > 0).map(([number, fate]) => `${count(number)} ${fate}`);
  const extra = added > 0 ? `; ${count(added)} added by the VMM` : '';
  return told.length > 0 ? `; not received: ${told.join(', ')}${extra}` : extra;
}

const SPREAD = ['min', 'p50', 'p90', 'p99', 'p99_9', 'max'];

function showLatencies({ report: { trace }, histograms }) {
  byId('latency-section').hidden = histograms.length === 0;
  if (histograms.length === 0) return;
  const unit = unitOf(histograms.flatMap(({ spread }) => SPREAD.map((it) => spread[it].ns)));
  const timed = ({ cycles, ns }) => element('td', { textContent: unit.figure(ns), title: `${some(cycles, 'cycle')} of the TSC` });
  table(
    'latencies',
    [`in ${unit.name}`, 'number', ...SPREAD.map((it) => it.replace('_', '.'))],
    histograms.map(({ name, spread }) => [name, figure(spread.count), ...SPREAD.map((it) => timed(spread[it]))]),
  );
  byId('served').textContent =
    `${some(trace.coalesced, 'IPI was', 'IPIs were')} served together with another of the same vector; ` +
    `${some(trace.untaken, 'has', 'have')} no handler in the trace.`;
  const place = byId('histograms');
  place.replaceChildren(...histograms.map(({ name }) => element('div', {}, element('h3', { textContent: name }))));
  const draw = () => {
    histograms.forEach(({ name, bins, per_decade: perDecade, spread }, at) => {
      const div = place.children[at];
      // Not wider than a line that is read at one glance.
      const width = Math.min(div.clientWidth, 560);
      if (Number(div.querySelector('svg')?.getAttribute('width')) === width) return;
      const quantiles = ['p50', 'p90', 'p99', 'p99_9'].map((it) => [it.replace('_', '.'), spread[it].ns]);
      const title = `${name}: ${count(spread.count)} between ${duration(spread.min.ns)} and ${duration(spread.max.ns)}, half up to ${duration(spread.p50.ns)}`;
      div.querySelector('svg')?.remove();
      div.append(drawHistogram({ bins, perDecade, quantiles, title, width, unitOf }));
    });
  };
  shown.histograms?.disconnect();
  shown.histograms = new ResizeObserver(draw);
  shown.histograms.observe(place);
  draw();
}

function showLongest() {
  const { timeline, chart } = shown;
  const ofGuest = timeline ? [...timeline.kinds.keys()].slice(timeline.firstLane) : [];
  const kinds = [KIND.IPI, ...ofGuest, KIND.interrupt, KIND.paused, KIND.held, KIND.exit, KIND.waiting];
  const ids = timeline ? kinds.flatMap((kind) => timeline.longest(kind)) : [];
  byId('longest-section').hidden = ids.length === 0;
  const length = (id) => timeline.to[id] - timeline.from[id];
  const unit = unitOf(ids.map(length));
  table(
    'longest',
    ['what', 'call', 'where', `at, ${unit.name}`, `took, ${unit.name}`, ''].map((text, at) => element('th', { textContent: text, className: at < 3 ? 'words' : '' })),
    ids.map((id) => {
      const show = element('button', { type: 'button', textContent: 'show' });
      show.onclick = () => {
        chart.bring(id);
        byId('timeline-section').scrollIntoView();
        chart.canvas.focus({ preventScroll: true });
      };
      return [
        words(timeline.words[timeline.name[id]]),
        words(timeline.words[timeline.call[id]].replace('call ', '')),
        words(timeline.where(id)),
        unit.figure(timeline.from[id]),
        unit.figure(length(id)),
        element('td', {}, show),
      ];
    }),
  );
}

function showMatrix({ report: { trace, vcpus }, timeline }) {
  const pairs = trace ? trace.pairs : [];
  byId('matrix-section').hidden = pairs.length === 0 || vcpus > MOST_IN_MATRIX;
  if (byId('matrix-section').hidden) return;
  const by = new Map(pairs.map((pair) => [`${pair.from} ${pair.to}`, pair]));
  const [what, which] = [byId('matrix-what'), byId('matrix-which')];
  const cpus = Array.from({ length: vcpus }, (_, id) => id);
  const own = [['ipi', 'IPI sent to handler'], ['call', 'call to run on the target']];
  const waits = (timeline?.waits ?? []).map(([key, lane]) => [key, `${lane}, for whom`]);
  what.replaceChildren(...[...own, ...waits].map(([value, textContent]) => element('option', { value, textContent })));
  const draw = () => {
    const log = (spread) => Math.log(Math.max(1, spread[which.value].ns));
    const logs = pairs.flatMap((pair) => (pair[what.value] ? [log(pair[what.value])] : []));
    const [low, high] = [Math.min(...logs), Math.max(...logs)];
    const unit = unitOf(pairs.flatMap((pair) => (pair[what.value] ? [pair[what.value][which.value].ns] : [])));
    const cell = (from, to) => {
      const spread = by.get(`${from} ${to}`)?.[what.value];
      if (!spread) return element('td');
      const heat = high > low ? (log(spread) - low) / (high - low) : 0;
      const td = element('td', { textContent: unit.figure(spread[which.value].ns) });
      td.title = `CPU ${from} → CPU ${to}: ${count(spread.count)}, p50 ${duration(spread.p50.ns)}, p99 ${duration(spread.p99.ns)}, longest ${duration(spread.max.ns)}`;
      td.style.background = `rgba(var(--heat), ${(heat * 0.45).toFixed(3)})`;
      return td;
    };
    byId('matrix-unit').textContent = `in ${unit.name}`;
    table('matrix', ['from \\ to', ...cpus], cpus.map((from) => [`${from}`, ...cpus.map((to) => cell(from, to))]));
  };
  what.onchange = draw;
  which.onchange = draw;
  draw();
}

function showVcpus({ report: { per_vcpu: vcpus } }) {
  const names = (key) => [...new Set(vcpus.flatMap((vcpu) => Object.keys(vcpu[key])))].sort();
  const columns = [
    ['IPIs sent', (vcpu) => vcpu.ipi_sent],
    ['received', (vcpu) => vcpu.ipi_received],
    ...names('exits').map((name) => [`user ${name}`, (vcpu) => vcpu.exits[name] || 0]),
    ...names('kvm').filter((name) => name.endsWith('exits')).map((name) => [`kvm ${name.replaceAll('_', ' ')}`, (vcpu) => vcpu.kvm[name] || 0]),
  ].filter(([, value], at) => at < 2 || vcpus.some((vcpu) => value(vcpu) > 0));
  const sum = (value) => vcpus.reduce((total, vcpu) => total + value(vcpu), 0);
  table(
    'vcpus',
    ['CPU', ...columns.map(([name]) => name)],
    vcpus.map((vcpu) => [`${vcpu.id}`, ...columns.map(([, value]) => figure(value(vcpu)))]),
    ['sum', ...columns.map(([, value]) => figure(sum(value)))],
  );
  const one = (value) => (Array.isArray(value) ? value.reduce((total, it) => total + it, 0) : value || 0);
  const statistics = names('kvm').filter((name) => vcpus.some((vcpu) => one(vcpu.kvm[name]) > 0));
  const details = byId('kvm').closest('details');
  details.hidden = statistics.length === 0;
  // Made only when it is opened: it has forty rows, and a column for each of up to a thousand vCPUs.
  const fill = () =>
    table(
      'kvm',
      ['', ...vcpus.map((vcpu) => `CPU ${vcpu.id}`)],
      details.open ? statistics.map((name) => [name, ...vcpus.map((vcpu) => figure(one(vcpu.kvm[name])))]) : [],
    );
  details.ontoggle = fill;
  fill();
}

function show(machine) {
  shown.machine = machine;
  document.title = `${ended(machine.report)}: ${machine.what}`;
  showVerdict(machine);
  showTrouble(machine);
  showTimeline(machine);
  showLatencies(machine);
  showLongest();
  showMatrix(machine);
  showVcpus(machine);
}

function start() {
  const documents = [...document.querySelectorAll('script.machine')];
  const refused = JSON.parse(byId('refusal').textContent);
  byId('refused').hidden = refused === null;
  byId('refused').textContent = refused || '';
  if (documents.length === 0) {
    document.querySelector('main').hidden = true;
    byId('result').textContent = 'No machine has run.';
    return;
  }
  const choice = byId('machine');
  choice.replaceChildren(
    ...documents.map((it, at) => element('option', { value: at, textContent: `${at + 1} of ${documents.length}: ${it.dataset.result}` })),
  );
  byId('choice').hidden = documents.length === 1;
  choice.onchange = () => show(JSON.parse(documents[choice.value].textContent));
  show(JSON.parse(documents[0].textContent));
}

start();
