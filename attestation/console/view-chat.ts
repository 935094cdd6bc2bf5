// The conversation: each message is sealed to the proven key, each answer shown as it comes and marked with
// what its receipt showed. What ended badly stays on the page, marked as not to be trusted, and is not part
// of what is sent next.

import { AttestationError } from '../transcript/errors.ts';
import { toHex } from '../encoding/bytes.ts';
import type { FinalReceipt } from '../receipts/body.ts';
import type { ReceiptVerdict } from '../client/receipt-options.ts';
import { byId, element, setText } from './elements.ts';
import { AnswerError, type Turn, LockedError, type Session } from './session.ts';
import { counted, shownPart, visibleText } from './text.ts';

const LOCKED: Readonly<Record<Session['verdict']['kind'], string>> = {
  asking: 'Nothing can be sent before the evidence is accepted.',
  'not judged': 'Nothing can be sent without a policy that accepts the evidence.',
  refused: 'The evidence was refused: nothing can be sent.',
  rotated: 'The server shows another key: nothing can be sent until its evidence is accepted.',
  simulated: 'Messages are sealed, to pretend hardware: send nothing that matters.',
  verified:
    'Messages are sealed to the proven key on this machine. Enter sends, Shift and Enter start a line.',
};

export class ChatView {
  readonly #session: Session;
  readonly #onReceipt: () => void;
  readonly #form = byId('chat-form', HTMLFormElement);
  readonly #log = byId('chat-log', HTMLElement);
  readonly #text = byId('chat-text', HTMLTextAreaElement);
  readonly #send = byId('chat-send', HTMLButtonElement);
  readonly #stop = byId('chat-stop', HTMLButtonElement);
  readonly #new = byId('chat-new', HTMLButtonElement);
  readonly #model = byId('chat-model', HTMLSelectElement);
  readonly #key = byId('chat-key', HTMLInputElement);
  #messages: readonly Turn[] = [];
  #answering: AbortController | undefined;

  constructor(session: Session, onReceipt: () => void) {
    this.#session = session;
    this.#onReceipt = onReceipt;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#ask();
    });
    this.#text.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.#ask();
    });
    this.#stop.addEventListener('click', () => this.#answering?.abort());
    this.#new.addEventListener('click', () => {
      this.#answering?.abort();
      this.#messages = [];
      this.#log.replaceChildren();
      this.show();
    });
  }

  show(): void {
    const { open, verdict } = this.#session;
    const focused = document.activeElement;
    setText(byId('chat-state', HTMLElement), LOCKED[verdict.kind]);
    this.#text.disabled = !open;
    this.#send.disabled = !open || this.#answering !== undefined;
    this.#stop.hidden = this.#answering === undefined;
    this.#new.disabled = this.#log.childElementCount === 0;
    if (
      focused instanceof HTMLElement &&
      this.#form.contains(focused) &&
      (focused.matches(':disabled') || focused.hidden)
    )
      (open ? this.#text : byId('verdict', HTMLElement)).focus();
    const { outcome } = verdict;
    const ids = outcome !== undefined && 'result' in outcome ? [...outcome.result.models.keys()] : [];
    const shown = [...this.#model.options].map(({ value }) => value);
    if (ids.join('\n') !== shown.join('\n'))
      this.#model.replaceChildren(...ids.map((id) => element('option', { value: id }, id)));
    this.#model.disabled = !open || ids.length < 2;
  }

  async #ask(): Promise<void> {
    const content = this.#text.value.trim();
    if (content === '' || this.#answering !== undefined || !this.#session.open) return;
    const answering = (this.#answering = new AbortController());
    const messages: readonly Turn[] = [...this.#messages, { role: 'user', content }];
    this.#log.append(said('You', content, 'mine'));
    const answer = new AnswerItem(this.#model.value);
    this.#log.append(answer.item);
    this.#text.value = '';
    this.show();
    try {
      const request = {
        messages,
        model: this.#model.value,
        apiKey: this.#key.value,
        signal: answering.signal,
      };
      let verdict: ReceiptVerdict | undefined;
      for await (const event of this.#session.chat(request)) {
        if (event.kind === 'receipt') verdict = event.verdict;
        else if (event.kind === 'end') answer.complete(event.reason, verdict);
        else answer.add(event.kind, event.text);
      }
      this.#messages = [...messages, { role: 'assistant', content: answer.text }];
      this.#onReceipt();
    } catch (error) {
      answer.broken(answering.signal.aborted ? 'You stopped it.' : wordsOf(error));
      if (this.#text.value === '') this.#text.value = content;
    } finally {
      this.#answering = undefined;
      this.show();
    }
  }
}

/** One answer under way. */
class AnswerItem {
  readonly item: HTMLLIElement;
  readonly #words = new GrowingText();
  readonly #thoughts = new GrowingText();
  readonly #thinking = element('details', { hidden: '' }, element('summary', {}, 'Its reasoning'));
  #text = '';
  #frame: number | undefined;

  constructor(model: string) {
    this.#thinking.append(this.#thoughts.element);
    this.item = element('li', { 'aria-busy': 'true' }, element('p', { class: 'speaker' }, model), this.#thinking, this.#words.element); // prettier-ignore
  }

  get text(): string {
    return this.#text;
  }

  add(kind: 'text' | 'thought', text: string): void {
    if (kind === 'text') this.#text += text;
    (kind === 'text' ? this.#words : this.#thoughts).add(text);
    this.#frame ??= requestAnimationFrame(() => this.#show());
  }

  /** At most once a frame, however many pieces come. */
  #show(): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    this.#words.show();
    this.#thinking.hidden = !this.#thoughts.show();
    keepInView(this.item);
  }

  complete(reason: string | undefined, verdict: ReceiptVerdict | undefined): void {
    this.#show();
    this.item.removeAttribute('aria-busy');
    const cut = reason === 'length' ? ' It ends at the length limit.' : '';
    const receipt = verdict?.receipt;
    if (receipt !== undefined) this.item.append(receiptNote(receipt, verdict, cut));
    announce(`The answer is complete, and its receipt verified.${cut}`);
  }

  broken(why: string): void {
    this.#show();
    this.item.removeAttribute('aria-busy');
    this.item.classList.add('broken');
    const rest = this.#text === '' ? '' : ' What came before is not covered by a receipt: do not rely on it.';
    this.item.append(element('p', { class: 'seal bad', role: 'alert' }, `✕ ${why}${rest}`));
  }
}

/** A text that comes in pieces, each shown once: a long answer costs as much as its pieces. */
class GrowingText {
  readonly element = element('p', { class: 'words' });
  readonly #node = document.createTextNode('');
  #waiting: string[] = [];

  constructor() {
    this.element.append(this.#node);
  }

  add(piece: string): void {
    this.#waiting.push(piece);
  }

  /** False while there is none. */
  show(): boolean {
    const { ready, held } = shownPart(this.#waiting.join(''));
    this.#waiting = [held];
    if (ready !== '') this.#node.appendData(visibleText(ready));
    return this.#node.length > 0;
  }
}

function receiptNote(receipt: FinalReceipt, verdict: ReceiptVerdict | undefined, cut: string): HTMLElement {
  const { usage, model, seq, id } = receipt;
  const rows: readonly (readonly [string, string])[] = [
    ['Receipt', toHex(id)],
    [
      'Place in the chain',
      `${seq}${verdict?.order === 'apart' ? ' (the one before it was not seen here)' : ''}`,
    ],
    ['Model', `${model.id}, SHA-256 ${toHex(model.sha256)}`],
    ['Tokens', `${usage.promptTokens} in, ${usage.completionTokens} out`],
  ];
  return element(
    'details',
    { class: 'seal good' },
    element(
      'summary',
      {},
      `✓ Receipt verified: ${counted(usage.completionTokens, 'token')} of ${model.id}.${cut}`,
    ),
    element('dl', {}, ...rows.flatMap(([name, value]) => [element('dt', {}, name), element('dd', { class: 'digest' }, value)])), // prettier-ignore
  );
}

function said(who: string, text: string, look: string): HTMLLIElement {
  const words = element('p', { class: 'words' });
  words.textContent = visibleText(text);
  return element('li', { class: look }, element('p', { class: 'speaker' }, who), words);
}

const CODES: Readonly<Record<string, string>> = {
  sealed_altered: 'The answer was altered on the way',
  sealed_truncated: 'The answer was cut off on the way',
  sealed_unavailable: 'The answer did not come from the machine you verified, and is not shown',
  sealed_malformed: 'The answer was altered on the way',
  sealed_refused: 'Your message was altered on the way, so it was not answered',
  sealed_outcome_unknown: 'It is not known whether your message was answered. It was not sent again',
  connection_failed: 'The server could not be reached',
};

function wordsOf(error: unknown): string {
  if (error instanceof LockedError) return `${sentence(error.message)} Your message was not sent again.`;
  if (!(error instanceof AttestationError) && !(error instanceof AnswerError))
    return sentence(error instanceof Error ? error.message : 'it failed');
  const { code, message } = error;
  const known = CODES[code];
  const words = code.startsWith('receipt_') ? `The receipt of the answer does not hold: ${message}` : message;
  return code === '' ? sentence(known ?? words) : `${sentence(known ?? words).slice(0, -1)} (${code}).`;
}

function sentence(text: string): string {
  return `${text.replace(/^./, (first) => first.toUpperCase()).replace(/[.!?]$/, '')}.`;
}

function announce(text: string): void {
  setText(byId('announce', HTMLElement), text);
}

/** Follows an answer only while its end is being read. */
function keepInView(item: Element): void {
  const { bottom } = item.getBoundingClientRect();
  if (bottom > innerHeight && bottom < innerHeight + 160) item.scrollIntoView({ block: 'end' });
}
