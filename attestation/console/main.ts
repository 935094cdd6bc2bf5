// The page's entry: asks for evidence, shows the verdict, and lets texts be sealed to a key that was
// accepted (docs/console.md). Built with page.html and style.css to one file, console.html, of fixed bytes
// (image/console.ts).

import { sha256Digest } from '../client/asking.ts';
import { toHex, utf8 } from '../encoding/bytes.ts';
import { byId, setText } from './elements.ts';
import { Session } from './session.ts';
import { openStorage } from './storage.ts';
import { counted } from './text.ts';
import { ChatView } from './view-chat.ts';
import { PolicyView } from './view-policy.ts';
import { ProofView } from './view-proof.ts';
import { VerdictView } from './view-verdict.ts';

const AGE_MS = 5000;
const GIVEN_MAX_CHARACTERS = 2 * 1024 * 1024;

/** Of the local proxy, at `/console.json`. */
interface Given {
  readonly upstream: string;
  readonly policy: string | undefined;
}

async function start(): Promise<void> {
  const { origin } = location;
  const now = (): number => Date.now();
  const monotonic = (): number => performance.now();
  const storage = await openStorage();
  const onChange = (): void => {
    const { verdict, policy } = session;
    verdictView.show(verdict, policy !== undefined);
    showAge();
    proofView.show(verdict);
    chatView.show();
    showSaved();
    document.title = `${byId('verdict-word', HTMLElement).textContent} · Assay console`;
  };
  const session = new Session({
    origin,
    fetch: (input, init) => fetch(input, init),
    now,
    monotonic,
    memory: storage.memory,
    onChange,
  });
  const verdictView = new VerdictView({ judge: (simulated) => void session.judge({ simulated }) });
  const proofView = new ProofView();
  const policyView = new PolicyView({
    session,
    storage,
    now,
    digestOf: (text) => toHex(sha256Digest(utf8(text))),
    onUse: () => void session.judge({ simulated: false }),
  });
  const showSaved = (): void => {
    const { evidence, receipts } = session.savedCount;
    byId('save', HTMLButtonElement).disabled = evidence === 0;
    setText(byId('save-state', HTMLElement), evidence === 0 ? 'Nothing is accepted yet.' : `So far: ${counted(evidence, 'accepted piece')} of evidence, ${counted(receipts, 'receipt')}.`); // prettier-ignore
  };
  const chatView = new ChatView(session, showSaved);
  const showAge = (): void => verdictView.showAge(session.verdict, monotonic() - session.verdict.at);
  byId('save', HTMLButtonElement).addEventListener('click', () => {
    const texts = byId('save-texts', HTMLInputElement).checked;
    download(`${JSON.stringify(session.archive({ texts }))}\n`, `assay-${new URL(origin).hostname}.json`);
  });
  setInterval(showAge, AGE_MS);

  const given = await givenByProxy();
  introduce(origin, given);
  if (given?.policy !== undefined) policyView.offerGiven(given.policy);
  await policyView.offerKept().catch(() => undefined);
  await session.judge({ simulated: false });
}

/**
 * Only a program on this machine answers over plain http on loopback: it alone is asked, since a server
 * would choose its own policy.
 */
async function givenByProxy(): Promise<Given | undefined> {
  if (location.protocol !== 'http:') return undefined;
  try {
    const response = await fetch('/console.json', { credentials: 'omit', redirect: 'error', cache: 'no-store' }); // prettier-ignore
    if (!response.ok) return undefined;
    const text = await response.text();
    if (text.length > GIVEN_MAX_CHARACTERS) return undefined;
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null || !('upstream' in value)) return undefined;
    const { upstream } = value;
    const policy = 'policy' in value ? value.policy : undefined;
    if (typeof upstream !== 'string') return undefined;
    return { upstream, policy: typeof policy === 'string' ? policy : undefined };
  } catch {
    return undefined;
  }
}

function introduce(origin: string, given: Given | undefined): void {
  const vouch = byId('vouch', HTMLElement);
  if (location.protocol !== 'http:') {
    setText(byId('place', HTMLElement), new URL(origin).host);
    setText(
      vouch,
      `A page cannot vouch for whoever served it, and this one came from the very server it judges. To be sure, run “assay-verify console ${origin}” on your own machine, and open the address it prints.`,
    );
    return;
  }
  vouch.classList.add('local');
  if (given === undefined) {
    setText(
      vouch,
      'A page cannot vouch for whoever served it. This one came from a program on this machine: trust it as far as you trust that program.',
    );
    return;
  }
  setText(byId('place', HTMLElement), new URL(given.upstream).host);
  setText(
    vouch,
    `This page came from assay-verify on your own machine, which judged the connection to ${given.upstream}. The page judges the key your messages are sealed to. Did you not start assay-verify yourself? Then trust neither.`,
  );
}

/** A file that the reader asked for; it leaves this page and no further. */
function download(text: string, name: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

void start();
