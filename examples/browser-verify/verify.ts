// Judges a saved evidence file in the page: the browser-safe entry needs no server, and the file stays on the machine.
// npx esbuild examples/browser-verify/verify.ts --bundle --format=esm --outdir=examples/browser-verify --servedir=examples/browser-verify

import { type EvidenceResult, runEvidence } from '@assay/attestation';

/** The text the page shows: the verdict, and each check that failed. */
export function verdictOf({ output }: EvidenceResult): string {
  const failed = output.checks.filter(({ status }) => status === 'fail');
  return [
    output.accepted ? 'accepted' : `refused: ${output.code}`,
    ...(output.claims['rootsReplaced'] === true
      ? ['by roots the file brings itself: nothing about hardware is proven']
      : []),
    ...failed.map(({ title, detail }) => `✗ ${title}: ${detail}`),
  ].join('\n');
}

/** The text of an evidence file → its verdict; never throws for what is in the file. */
export async function verifyText(text: string): Promise<string> {
  return verdictOf(await runEvidence(text));
}

/** Wires the file input of the page to its verdict. */
export function start(page: Document): void {
  const input = page.querySelector<HTMLInputElement>('#file');
  const verdict = page.querySelector('#verdict');
  if (input === null || verdict === null) throw new Error('the page has no #file or no #verdict');
  const show = async (): Promise<void> => {
    const text = await input.files?.[0]?.text();
    if (text !== undefined) verdict.textContent = await verifyText(text);
  };
  input.addEventListener('change', () => void show());
}
