// The findings in the evidence, check by check: the properties in words, what no proof can show, the models
// with their digests, and every rule as it came out.

import { detailOf, type Meaning, meaningOf, NEVER_PROVEN, type Standing } from '../appraise/explain.ts';
import type { Verified } from '../appraise/appraise.ts';
import { toHex } from '../encoding/bytes.ts';
import type { Check, CheckStatus } from '../transcript/checks.ts';
import { byId, element, setText } from './elements.ts';
import { checksOf, type Verdict } from './session.ts';
import { counted } from './text.ts';

const STATUS: Readonly<Record<CheckStatus, { readonly word: string; readonly look: string }>> = {
  pass: { word: 'ok', look: 'mark good' },
  fail: { word: 'FAIL', look: 'mark bad' },
  skip: { word: '–', look: 'mark' },
};

const STANDING: Readonly<Record<Standing, { readonly word: string; readonly look: string }>> = {
  proven: { word: 'yes', look: 'mark good' },
  simulated: { word: 'simulated', look: 'mark care' },
  refused: { word: 'NO', look: 'mark bad' },
  'not proven': { word: 'not proven', look: 'mark' },
};

/** The properties as questions a newcomer asks. */
const QUESTIONS: Readonly<Record<Meaning['id'], string>> = {
  P1: 'Is it genuine hardware?',
  P2: 'Does it run software I know?',
  P3: 'Will the model I expect answer?',
  P4: 'Can only that machine read my messages?',
  P5: 'Is this proof from now?',
  P6: 'Was nothing sent before the proof?',
};

export class ProofView {
  readonly #checks = byId('checks', HTMLElement);
  readonly #more = byId('checks-more', HTMLDetailsElement);

  #opened = false;

  constructor() {
    const limits = NEVER_PROVEN.slice(1).map((line) => element('li', {}, line.trim()));
    byId('never', HTMLElement).replaceChildren(...limits);
  }

  show(verdict: Verdict): void {
    const checks = checksOf(verdict);
    this.#showMeanings(verdict, checks);
    this.#showModels(verdict);
    this.#checks.replaceChildren(...checks.map(rowOf));
    setText(byId('checks-count', HTMLElement), countsOf(checks));
    // A reader looks for the checks that failed; a choice of the reader's own stays.
    if (verdict.kind === 'refused' || this.#opened) this.#more.open = verdict.kind === 'refused';
    this.#opened = verdict.kind === 'refused';
  }

  #showMeanings(verdict: Verdict, checks: readonly Check[]): void {
    const meanings = verdict.outcome === undefined ? [] : meaningOf(judged(verdict, checks));
    const rows = meanings.flatMap(({ id, standing, words }) => {
      const { word, look } = STANDING[standing];
      return [
        element('dt', {}, element('span', {}, QUESTIONS[id]), element('span', { class: look }, word)),
        element('dd', {}, `${words.replace(/^./, (first) => first.toUpperCase())}.`),
      ];
    });
    byId('proven', HTMLElement).replaceChildren(
      ...(rows.length > 0 ? rows : [element('dt', { class: 'quiet' }, 'Nothing yet')]),
    );
  }

  #showModels({ outcome, document }: Verdict): void {
    const proven = outcome !== undefined && 'result' in outcome;
    const rows = (document?.models ?? []).flatMap(({ id, sha256 }) => [
      element('dt', {}, element('span', {}, id), ...(proven ? [] : [element('span', { class: 'mark' }, 'not proven')])), // prettier-ignore
      element('dd', { class: 'digest' }, `SHA-256 ${toHex(sha256)}`),
    ]);
    byId('models', HTMLElement).replaceChildren(
      ...(rows.length > 0 ? rows : [element('dt', { class: 'quiet' }, 'none shown yet')]),
    );
  }
}

/** Without a policy the rows of one are open, and what rests on them is not proven. */
function judged({ kind, outcome }: Verdict, transcript: readonly Check[]): Parameters<typeof meaningOf>[0] {
  const open = { result: { transcript } as unknown as Verified };
  return outcome === undefined || (kind === 'not judged' && transcript.length > 0) ? open : outcome;
}

function rowOf(check: Check): HTMLLIElement {
  const { word, look } = STATUS[check.status];
  const more = [element('p', {}, detailOf(check)), element('p', { class: 'source' }, `${check.id} · ${check.spec}`)]; // prettier-ignore
  return element(
    'li',
    { 'data-check': check.id, 'data-status': check.status },
    element('span', { class: look }, word),
    element('div', {}, check.title, ...more),
  );
}

function countsOf(checks: readonly Check[]): string {
  if (checks.length === 0) return 'No check has been made.';
  const of = (status: CheckStatus): number => checks.filter((check) => check.status === status).length;
  return `${counted(checks.length, 'check')}: ${of('pass')} ok, ${of('fail')} failed, ${of('skip')} not asked or not applicable (–). A – is never a pass.`;
}
