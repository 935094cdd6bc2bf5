// A transcript in plain words: what each property of docs/protocol.md §1 came to, and what no transcript can
// prove. For people; programs read the transcript. It states only what the checks carry: a property holds
// when each of its rules passed; a skipped rule leaves it unproven, and so does a failed rule it rests on:
// software that is not on the list can claim any model, key or nonce.

import type { Verified } from './appraise.ts';
import type { SoftwareRoot } from './software-root.ts';
import type { Check } from '../transcript/checks.ts';
import type { AttestationError } from '../transcript/errors.ts';

/** `simulated`: the checks passed on evidence anyone can make. */
export type Standing = 'proven' | 'simulated' | 'refused' | 'not proven';

/** One property, what it came to, and what that means. */
export interface Meaning {
  readonly id: 'P1' | 'P2' | 'P3' | 'P4' | 'P5' | 'P6';
  readonly title: string;
  readonly standing: Standing;
  readonly words: string;
}

/** The result of `verify`, or the error it threw. */
export type Outcome = { readonly result: Verified } | { readonly error: AttestationError };

/**
 * Rules a property rests on; each must have passed for it to hold. Vendor rules not named here belong to P1.
 */
const SOFTWARE: ReadonlySet<string> = new Set([
  'S21',
  'S23',
  'S27',
  'S28',
  'S29',
  'S30',
  'T22',
  'T24',
  'T25',
  'T26',
  'E1',
  'E2',
  'E3',
  'P4',
  'P8',
  'P9',
  'D9',
  'D12',
  'V5',
  'V6',
  'V8',
  'V9',
  'Z7',
  'Z8',
  'N7',
  'N9',
  'N10',
  'K1',
  'G4',
  'G5',
]);
const MODEL: ReadonlySet<string> = new Set(['D5', 'D6', 'D7', 'C4', 'P5', 'P6']);
const CHANNEL: ReadonlySet<string> = new Set(['C2', 'C3', 'C5', 'C6', 'C7', 'C8', 'C10']);
const FRESH: ReadonlySet<string> = new Set(['C1', 'D10', 'D11']);
/**
 * The rules that bind the claims to the hardware's signature; model, channel and freshness rest on
 * them and on known software.
 */
const BINDING: ReadonlySet<string> = new Set(['D1', 'D2', 'D3', 'D4', 'D8', 'S32', 'T27', 'V3', 'N8']);
/** Rules whose skip leaves the property open; the skip of any other is the policy not asking. */
const DECISIVE: ReadonlySet<string> = new Set([
  'P2',
  'P4',
  'P5',
  'P6',
  'D1',
  'D4',
  'D5',
  'D6',
  'D7',
  'C1',
  'C2',
  'C3',
  'C5',
]);

type PropertyId = Exclude<Meaning['id'], 'P6'>;

function propertyOf(check: Check): PropertyId {
  if (SOFTWARE.has(check.id)) return 'P2';
  if (MODEL.has(check.id)) return 'P3';
  if (CHANNEL.has(check.id)) return 'P4';
  if (FRESH.has(check.id)) return 'P5';
  return 'P1';
}

const TITLES: Readonly<Record<Meaning['id'], string>> = {
  P1: 'genuine hardware',
  P2: 'known software',
  P3: 'this model',
  P4: 'this channel',
  P5: 'now',
  P6: 'nothing before proof',
};

const PROVEN: Readonly<Record<PropertyId, string>> = {
  P1: 'the report is signed by a key the processor’s maker endorses, its firmware is recent enough, and nothing was revoked',
  P2: 'the machine started exactly a build you list, and its guest cannot be debugged, nor moved unless your policy allows it',
  P3: 'the weights it answers with are the bytes you list',
  P4: 'your TLS connection ends inside that machine, and nowhere on the way',
  P5: 'the evidence was made for your question, not kept from earlier',
};

const SEALED =
  'only that machine can open what you seal to its key, and write its answers; whoever ends TLS on the way sees addresses, sizes and times, and may relay, drop or repeat';

const REFUSED: Readonly<Record<PropertyId, string>> = {
  P1: 'it is not shown that real, current, unrevoked hardware signed this',
  P2: 'the machine runs something else than you list, or may be debugged or moved',
  P3: 'it would answer with other weights than you list',
  P4: 'someone may sit between you and the machine',
  P5: 'the evidence may be old or made for someone else',
};

/**
 * The six properties in order.
 * @example const meanings = meaningOf({ result });
 */
export function meaningOf(outcome: Outcome): readonly Meaning[] {
  const transcript = 'result' in outcome ? outcome.result.transcript : outcome.error.transcript;
  const simulated = isSimulated(transcript);
  // Refused without a failed rule: the evidence could not be read, so the checks before that prove no
  // property.
  const cutShort = 'error' in outcome && !transcript.some(({ status }) => status === 'fail');
  const unbound = transcript.filter((check) => BINDING.has(check.id) && check.status !== 'pass');
  let foundation = simulated ? 'simulated' : 'proven';
  const five = (['P1', 'P2', 'P3', 'P4', 'P5'] as const).map((id): Meaning => {
    const meaning = cutShort ? unjudged(id) : judge(id, transcript);
    if (id === 'P1' || id === 'P2') {
      if (meaning.standing !== 'proven')
        foundation = id === 'P1' && simulated && meaning.standing !== 'refused' ? 'simulated' : TITLES[id];
    } else if (meaning.standing === 'proven' && unbound.length > 0) {
      return {
        ...meaning,
        standing: 'not proven',
        words: `the claims are not shown to be the signed ones (${idsOf(unbound)})`,
      };
    }
    if (meaning.standing !== 'proven' || foundation === 'proven') return meaning;
    if (foundation === 'simulated') return { ...meaning, standing: 'simulated' };
    return { ...meaning, standing: 'not proven', words: `it rests on “${foundation}”, which is not shown` };
  });
  const words =
    'result' in outcome
      ? 'the evidence was judged before any request'
      : 'no request was sent, and none would be';
  return [...five, { id: 'P6', title: TITLES.P6, standing: 'proven', words }];
}

function unjudged(id: PropertyId): Meaning {
  return { id, title: TITLES[id], standing: 'not proven', words: 'it could not be judged' };
}

function judge(id: PropertyId, transcript: readonly Check[]): Meaning {
  const judged = transcript.filter((check) => !BINDING.has(check.id) && propertyOf(check) === id);
  // For sealed bodies the channel is the key: no TLS connection is judged.
  const sealed = judged.some((check) => check.id === 'C10');
  const checks = sealed ? judged.filter((check) => check.id === 'C10') : judged;
  const failed = checks.filter(({ status }) => status === 'fail');
  const open = checks.filter((check) => check.status === 'skip' && DECISIVE.has(check.id));
  const title = TITLES[id];
  if (failed.length > 0)
    return { id, title, standing: 'refused', words: `${REFUSED[id]} (${idsOf(failed)})` };
  if (checks.length === 0) return unjudged(id);
  if (open.length > 0) return { id, title, standing: 'not proven', words: open.map(detailOf).join('; ') };
  if (id === 'P1' && isSimulated(transcript)) {
    return {
      id,
      title,
      standing: 'not proven',
      words: 'the hardware is simulated: anyone can make such evidence',
    };
  }
  return { id, title, standing: 'proven', words: sealed ? SEALED : PROVEN[id] };
}

/**
 * The finding of a check for a person; values that are not authentic are marked.
 * @example const lines = result.transcript.map((check) => `${check.title}: ${detailOf(check)}`);
 */
export function detailOf({ detail, authenticated }: Check): string {
  return authenticated === false ? `not authenticated: ${detail}` : detail;
}

function idsOf(checks: readonly Check[]): string {
  return checks.map(({ id }) => id).join(', ');
}

function isSimulated(transcript: readonly Check[]): boolean {
  return transcript.some(({ id, detail }) => id === 'P2' && detail.startsWith('evidence is simulated'));
}

/**
 * Plain words for a person: the verdict, each property, what was not asked, and what is never
 * proven. Lines, no markup.
 * @example for (const line of explain({ result })) console.log(line);
 */
export function explain(outcome: Outcome): readonly string[] {
  return [
    ...verdictWords(outcome),
    '',
    ...meaningOf(outcome).map(sentence),
    '',
    ...notAsked(outcome),
    ...NEVER_PROVEN,
  ];
}

function verdictWords(outcome: Outcome): string[] {
  if ('error' in outcome) {
    const { error } = outcome;
    const failures = error.transcript.filter(({ status }) => status === 'fail').length;
    const more =
      failures > 1 ? [`${failures} checks failed in all; this one gives the verdict its code.`] : [];
    return [
      `Refused: ${error.message}.`,
      ...more,
      ...(error.hint === undefined ? [] : [`What you can do: ${error.hint}.`]),
    ];
  }
  const { result } = outcome;
  const build = result.build === undefined ? 'a build you list' : `the build you call “${result.build}”`;
  const intel = result.teeType === 'aws-nitrotpm' ? 'an AWS instance' : 'an Intel TDX machine';
  const vendors = result.product === undefined ? intel : `an AMD ${result.product} machine`;
  const where = result.simulated ? 'a simulated machine' : vendors;
  const models = [...result.models.keys()].join(', ');
  const fresh = result.certificateAlone
    ? ' At some time, on some connection: the evidence is a certificate’s.'
    : '';
  return [
    `Accepted: ${result.channel === 'sealed' ? 'the holder of the key you seal to' : 'at the other end of this connection'} is ${where} that runs ${build} and serves ${models}.${fresh}`,
    ROOT_WORDS[result.softwareRoot],
  ];
}

/** For whom "known software" makes its reader trust, in one sentence. */
const ROOT_WORDS: Readonly<Record<SoftwareRoot, string>> = {
  cpu: 'Which software runs is the processor’s own word: it measured the image, and you need to trust its maker alone.',
  'vendor-firmware':
    'Which software runs is the word of the cloud’s firmware: the processor measured that firmware, the cloud vouches for it, and it measured the image.',
  paravisor:
    'Which software runs is the word of the cloud’s paravisor: the processor measured the paravisor, and that, below the guest, measured the image.',
  hypervisor:
    'Which software runs is the word of the cloud’s hypervisor: it keeps the registers that say so, outside of what the processor protects.',
};

/** How a standing is written for a person. */
export const STANDING_WORDS: Readonly<Record<Standing, string>> = {
  proven: 'yes',
  simulated: 'simulated',
  refused: 'NO',
  'not proven': 'not proven',
};

function sentence({ title, standing, words }: Meaning): string {
  return `${title}: ${STANDING_WORDS[standing]} — ${words}.`;
}

/** Skips are not passes: what the policy did not ask, in one line each. */
function notAsked(outcome: Outcome): string[] {
  const transcript = 'result' in outcome ? outcome.result.transcript : outcome.error.transcript;
  const skipped = transcript.filter(({ status }) => status === 'skip');
  if (skipped.length === 0) return [];
  return [
    'Not checked, because the policy does not ask or it does not apply:',
    ...skipped.map((check) => `  ${check.id} ${check.title}: ${detailOf(check)}`),
    '',
  ];
}

/** The limits of attestation (docs/threat-model.md); the same whatever the verdict. */
export const NEVER_PROVEN: readonly string[] = [
  'What no such proof can show:',
  '  that nobody with physical access to the machine taps its memory; list `chips` you know to be in good hands against that',
  '  that the processor has no unknown flaw or side channel, and that its maker’s keys are only in its maker’s hands',
  '  that the software measured has no bugs; it is the build you list, no more',
  '  that nothing is learnt from the sizes and times of your requests',
  '  that the answers are right',
];
