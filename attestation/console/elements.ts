// Elements of the page, made of text alone: no string is ever read as HTML, and the page's policy has the
// browser refuse it (Trusted Types).

import { visibleText } from './text.ts';

type Attributes = Readonly<Record<string, string | undefined>>;

export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  attributes: Attributes = {},
  ...children: readonly (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== undefined) made.setAttribute(key, value);
  made.append(...children.map((child) => (typeof child === 'string' ? visibleText(child) : child)));
  return made;
}

/** The element of the page with that id; the page and this script are one file. */
export function byId<T extends HTMLElement>(id: string, kind: abstract new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new TypeError(`the page has no ${id}`);
  return found;
}

export function setText(target: Element, text: string): void {
  const shown = visibleText(text);
  if (target.textContent !== shown) target.textContent = shown;
}

export function button(label: string, run: () => void, attributes: Attributes = {}): HTMLButtonElement {
  const made = element('button', { type: 'button', ...attributes }, label);
  made.addEventListener('click', run);
  return made;
}
