'use strict';

/* Makes the elements of a page, from text and never from markup, and what several pages show in the same way. */

const byId = (id) => document.getElementById(id);

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const count = (number) => number.toLocaleString('en');

/** A number with its noun. */
const some = (number, noun, nouns = `${noun}s`) => `${count(number)} ${number === 1 ? noun : nouns}`;

function table(id, head, rows, foot) {
  const row = (cells, name) =>
    element('tr', {}, ...cells.map((cell) => (cell instanceof Node ? cell : element(name, { textContent: cell }))));
  byId(id).replaceChildren(
    element('thead', {}, row(head, 'th')),
    element('tbody', {}, ...rows.map((cells) => row(cells, 'td'))),
    ...(foot ? [element('tfoot', {}, row(foot, 'td'))] : []),
  );
}

const figure = (number) => element('td', { textContent: count(number), className: number === 0 ? 'zero' : '' });
const words = (text) => element('td', { textContent: text, className: 'words' });

/** Pairs of a name and a text, at the head of the page. */
function showFacts(facts) {
  byId('facts').replaceChildren(
    ...facts.map(([name, value]) => element('div', {}, element('dt', { textContent: name }), element('dd', { textContent: value }))),
  );
}
