// The reader's policy: pasted, opened as a file, kept from before, or the one the local proxy was started
// with. None is built in, and none is used before a click.

import { AttestationError } from '../transcript/errors.ts';
import { lintPolicy } from '../appraise/policy-lint.ts';
import { button, byId, element, setText } from './elements.ts';
import type { Session, UsedPolicy } from './session.ts';
import type { ConsoleStorage } from './storage.ts';
import { counted } from './text.ts';

const MAX_FILE_BYTES = 1024 * 1024;

interface PolicyViewOptions {
  readonly session: Session;
  readonly storage: ConsoleStorage;
  readonly digestOf: (text: string) => string;
  readonly now: () => number;
  /** A policy is in use: judge by it. */
  readonly onUse: () => void;
}

export class PolicyView {
  readonly #options: PolicyViewOptions;
  readonly #text = byId('policy-text', HTMLTextAreaElement);
  readonly #file = byId('policy-file', HTMLInputElement);
  readonly #kept = byId('policy-kept', HTMLElement);
  readonly #edit = byId('policy-edit', HTMLDetailsElement);
  readonly #error = byId('policy-error', HTMLElement);

  constructor(options: PolicyViewOptions) {
    this.#options = options;
    byId('policy-use', HTMLButtonElement).addEventListener('click', () => this.#use(this.#text.value));
    this.#file.addEventListener('change', () => void this.#read());
    this.#state();
  }

  /** The policy of an earlier visit, for a click. */
  async offerKept(): Promise<void> {
    const kept = await this.#options.storage.policy();
    if (kept === undefined) return;
    const when = new Date(kept.at).toLocaleString();
    this.#offer(`Kept in this browser since ${when}`, kept.text, [
      button('Forget it', () => void this.#forget()),
    ]);
  }

  /** Of the local proxy, for a click as any other. */
  offerGiven(text: string): void {
    this.#offer('The one assay-verify was started with', text, []);
  }

  #offer(title: string, text: string, more: readonly Node[]): void {
    const use = button('Use this policy', () => {
      this.#text.value = text;
      this.#use(text);
    });
    const digest = element('p', { class: 'digest' }, `SHA-256 ${this.#options.digestOf(text)}`);
    const actions = element('div', { class: 'actions' }, use, ...more);
    this.#kept.append(element('div', { class: 'kept' }, element('p', {}, title), digest, actions));
  }

  async #forget(): Promise<void> {
    try {
      await this.#options.storage.forgetPolicy();
    } catch {
      setText(this.#error, 'The browser could not forget it.');
      return;
    }
    this.#kept.replaceChildren();
    this.#state();
  }

  #use(text: string): void {
    const { session, storage, now, onUse } = this.#options;
    setText(this.#error, '');
    this.#text.removeAttribute('aria-invalid');
    try {
      if (text.trim() === '') throw new Error('there is no policy in the field');
      session.usePolicy(text);
    } catch (error) {
      const hint = error instanceof AttestationError && error.hint !== undefined ? ` (${error.hint})` : '';
      setText(this.#error, `This is no policy: ${error instanceof Error ? error.message : ''}${hint}`);
      this.#text.setAttribute('aria-invalid', 'true');
      return;
    }
    // Kept or not, it is used: a browser without storage forgets.
    storage.keepPolicy({ text, at: now() }).catch(() => undefined);
    this.#kept.replaceChildren();
    this.#state();
    // The button that was used is gone or folded away.
    byId('verdict', HTMLElement).focus();
    onUse();
  }

  async #read(): Promise<void> {
    const [file] = this.#file.files ?? [];
    if (file === undefined) return;
    if (file.size > MAX_FILE_BYTES) {
      setText(this.#error, 'This file is too large for a policy.');
      return;
    }
    this.#text.value = await file.text();
    this.#file.value = '';
    this.#use(this.#text.value);
  }

  #state(): void {
    const { policy } = this.#options.session;
    setText(byId('policy-state', HTMLElement), policy === undefined ? NONE : inUse(policy));
    setText(byId('policy-digest', HTMLElement), policy === undefined ? '' : `SHA-256 ${policy.digest}`);
    this.#edit.open = policy === undefined;
  }
}

const NONE = 'None is in use: everything is shown, and nothing accepted.';

function inUse({ policy }: UsedPolicy): string {
  const builds = counted(policy.measurements.length, 'launch measurement');
  const models = [...(policy.models?.keys() ?? [])].join(', ');
  const questions = lintPolicy(policy).length;
  const more = questions === 0 ? '' : ` A careful reader would ask about ${counted(questions, 'line')} of it: assay-verify policy lint FILE.`; // prettier-ignore
  return `In use: ${builds}, models ${models}.${more}`;
}
