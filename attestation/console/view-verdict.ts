// The verdict at the top of the page: in a word, a shape and a sentence, with what the reader can do next.

import { explain } from '../appraise/explain.ts';
import { button, byId, element, setText } from './elements.ts';
import type { Verdict, VerdictKind } from './session.ts';
import { agoWords } from './text.ts';

interface Words {
  readonly sign: string;
  readonly word: string;
  readonly text: string;
}

const WORDS: Readonly<Record<VerdictKind, Words>> = {
  asking: {
    sign: '…',
    word: 'Asking for evidence',
    text: 'This page asks the server to prove what it is. Nothing else has been sent.',
  },
  'not judged': {
    sign: '?',
    word: 'Not judged',
    text: 'There is no policy to judge by yet. All that was found is shown; nothing is accepted, and nothing can be sent.',
  },
  refused: {
    sign: '✕',
    word: 'Refused',
    text: 'Nothing was sent, and nothing can be sent.',
  },
  simulated: {
    sign: '≈',
    word: 'Simulated',
    text: 'Every check passed, but on pretend hardware: anyone can make such evidence. Only for trying things out.',
  },
  verified: {
    sign: '✓',
    word: 'Verified',
    text: 'A machine that your policy accepts holds the key your messages are sealed to. No one else can read them on the way.',
  },
  rotated: {
    sign: '↻',
    word: 'Another key',
    text: 'The server shows another key than before. The conversation waits until you have its evidence judged.',
  },
};

export interface VerdictActions {
  readonly judge: (simulated: boolean) => void;
}

export class VerdictView {
  readonly #actions: VerdictActions;
  readonly #card = byId('verdict', HTMLElement);
  readonly #more = byId('verdict-more', HTMLElement);
  readonly #buttons = byId('verdict-actions', HTMLElement);

  constructor(actions: VerdictActions) {
    this.#actions = actions;
  }

  /** `hasPolicy`: there is one to judge by. */
  show(verdict: Verdict, hasPolicy: boolean): void {
    const { sign, word, text } = WORDS[verdict.kind];
    this.#card.dataset['verdict'] = verdict.kind.replace(' ', '-');
    setText(byId('verdict-sign', HTMLElement), sign);
    setText(byId('verdict-word', HTMLElement), word);
    setText(byId('verdict-text', HTMLElement), `${reasonOf(verdict)}${text}`);
    const hadFocus = this.#buttons.contains(document.activeElement);
    this.#buttons.replaceChildren(...this.#actionsOf(verdict, hasPolicy));
    if (hadFocus) this.#card.focus();
    setText(byId('announce', HTMLElement), `${word}. ${text}`);
  }

  /** Age of what was judged; `ageMs` since it came. */
  showAge({ kind, outcome, rotated, older }: Verdict, ageMs: number): void {
    if (kind === 'asking' || outcome === undefined) return setText(this.#more, '');
    const found = kind === 'verified' || kind === 'simulated' ? `${accepted(explain(outcome)[0])} ` : '';
    const age = `${found}This evidence came ${agoWords(ageMs)}, in answer to a number this page had drawn at random.`;
    const boot =
      rotated === undefined
        ? ''
        : ` ${rotated.boot === 'same' ? 'It is the same boot of the server, which makes its key anew from time to time.' : 'It is another boot of the server, or another server.'}`;
    const downgrade =
      older === undefined
        ? ''
        : ` Careful: you accepted the newer release ${older} here before. This one is older.`;
    setText(this.#more, `${age}${boot}${downgrade}`);
  }

  #actionsOf(verdict: Verdict, hasPolicy: boolean): readonly Node[] {
    const { kind } = verdict;
    if (kind === 'asking') return [];
    const again = (label: string, first: boolean, simulated: () => boolean): HTMLButtonElement =>
      button(label, () => this.#actions.judge(simulated()), first ? { class: 'first' } : {});
    if (!hasPolicy || !isOfSimulation(verdict) || kind === 'simulated')
      return [again(kind === 'rotated' ? 'Judge the new evidence' : 'Ask again', kind === 'rotated', () => false)]; // prettier-ignore
    const tick = element('input', { type: 'checkbox', id: 'simulated' });
    const label = element(
      'label',
      { class: 'tick', for: 'simulated' },
      tick,
      'Accept pretend hardware this once. I know that it proves nothing.',
    );
    return [label, again(kind === 'rotated' ? 'Judge the new evidence' : 'Judge again', true, () => tick.checked)]; // prettier-ignore
  }
}

/** The evidence itself says so. */
function isOfSimulation({ document }: Verdict): boolean {
  return document?.teeType === 'simulated';
}

function reasonOf({ kind, outcome }: Verdict): string {
  if (outcome === undefined) return '';
  if (kind === 'refused' && 'error' in outcome) return `${reason(outcome.error)} `;
  if (kind === 'not judged' && 'error' in outcome && outcome.error.transcript.length === 0)
    return `The server gave no evidence: ${outcome.error.message}. `;
  return '';
}

function accepted(line = ''): string {
  return line.replace(/^Accepted: /, '').replace(/^./, (first) => first.toUpperCase());
}

function reason({ message, hint }: { readonly message: string; readonly hint: string | undefined }): string {
  const sentence = `${message.replace(/^./, (first) => first.toUpperCase())}.`;
  return hint === undefined ? sentence : `${sentence} What you can do: ${hint}.`;
}
