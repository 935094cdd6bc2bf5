// Pickles in a real workshop: refused by default, with what the operator may set; with `workshop.pickles`
// they run in the jail alone. A hostile one tells what it could do: it wrote, read and reached no place
// outside, saw no other process, and the record says that pickles were allowed. Needs `make convert-oracle`.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openJobRecord } from '@assay/attestation/job-record';
import { pythonEnvironment } from '../fixtures/models/convert-oracle.ts';
import { HAVE_PYTHON, MINUTES } from '../fixtures/workshop/python-tools.ts';
import { startWorkshop, type Workshop } from '../fixtures/workshop/running.ts';

const CANARY = 'canary-19ab';
/** Of Python: EROFS is an OSError. */
const [UNREACHED, READ_ONLY] = [
  /^no: (?:OSError|TimeoutError|ConnectionRefusedError)$/,
  /^no: (?:OSError|PermissionError)$/,
];
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, headersTimeout: 20 * MINUTES });

/** A pickle that tries the walls, and tells of in its output. `argv`: FOLDER SECRET PORT. */
const MAKE = `
import sys, torch
folder, secret, port = sys.argv[1:]
CODE = f'''
import json, os, socket
def tried(what):
    try:
        return str(what())
    except BaseException as error:
        return "no: " + type(error).__name__
report = dict(
    wrote=tried(lambda: open({folder + '/pwned'!r}, "w").write("x")),
    read=tried(lambda: open({secret!r}).read()),
    listed=tried(lambda: os.listdir({folder + "/.."!r})),
    network=tried(lambda: socket.create_connection(("127.0.0.1", {port}), 3)),
    outside=tried(lambda: socket.create_connection(("192.0.2.1", 80), 3)),
    input=tried(lambda: open("/job/in/model", "ab").write(b"x")),
    request=tried(lambda: open("/job/request.json", "a").write("x")),
    processes=len([each for each in os.listdir("/proc") if each.isdigit()]),
    parent=tried(lambda: os.kill(os.getppid(), 0) if os.getppid() > 1 else "init"),
)
open("/job/out/report.json", "w").write(json.dumps(report))
'''
class Evil:
    def __init__(self, code): self.code = code
    def __reduce__(self): return (eval, (f"(exec({self.code!r}, {{}}), __import__('torch').zeros(1))[1]",))
torch.save({"w": torch.ones(2), "x": Evil(CODE)}, folder + "/attack.bin")
torch.save({"x": Evil("import os; os._exit(3)")}, folder + "/exit.bin")
torch.save({"x": Evil("raise ValueError('${CANARY}')")}, folder + "/raise.bin")
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
torch.save(net, folder + "/module.pt")
`;

let listener: Server;
let port = 0;
let reached = 0;
beforeAll(async () => {
  listener = createServer((socket) => {
    reached += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  port = (listener.address() as AddressInfo).port;
});
afterAll(async () => {
  await dispatcher.close();
  await new Promise<void>((resolve) => listener.close(() => resolve()));
});

function useWorkshop(settings: string) {
  let workshop: Workshop;
  beforeAll(async () => {
    workshop = await startWorkshop({
      config: { workshop: `python = ${JSON.stringify(pythonEnvironment.folder)}\n${settings}` },
    });
    const [models, secret] = ['models', 'others/secret'].map((name) => join(workshop.folder, name));
    mkdirSync(join(workshop.folder, 'others'));
    writeFileSync(secret!, CANARY);
    const made = ['-I', '-c', MAKE, models!, secret!, String(port)];
    await promisify(execFile)(pythonEnvironment.python, made);
  }, 10 * MINUTES);
  afterAll(() => workshop.remove());
  return {
    at: (path: string) => join(workshop.folder, path),
    log: () => workshop.process.err() + workshop.process.out(),
    bytes: async (path: string) =>
      Buffer.from(await (await fetch(workshop.url + path, { dispatcher })).arrayBuffer()),
    async post(path: string, fields: Readonly<Record<string, unknown>>) {
      const response = await fetch(workshop.url + path, {
        method: 'POST',
        dispatcher,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(fields),
      });
      return { status: response.status, body: (await response.json()) as Readonly<Record<string, unknown>> };
    },
  };
}

const STATE_DICT = { path: 'pytorch_to_safetensors' } as const;

describe.skipIf(!HAVE_PYTHON)('as it is by default', () => {
  const { post, at } = useWorkshop('');
  test.each<[string, object]>([
    ['/api/convert/cross', { ...STATE_DICT, input_path: 'attack.bin' }],
    ['/api/convert/cross', { ...STATE_DICT, input_path: 'module.pt' }],
    ['/api/litert/convert/pytorch-to-tflite', { model_path: 'module.pt', input_shape: [1, 3, 8, 8] }],
  ])(
    '%s %j: 400',
    async (path, fields) => {
      const { status, body } = await post(path, { ...fields });
      expect({ status, body }).toMatchObject({
        status: 400,
        body: { error: { code: 'unsupported_model_format' } },
      });
      expect(existsSync(at('models/pwned'))).toBe(false);
      if (path === '/api/convert/cross') expect(String(body['detail'])).toContain('workshop.pickles');
    },
    10 * MINUTES,
  );
});

describe.skipIf(!HAVE_PYTHON)('with workshop.pickles = "jail"', () => {
  const { post, bytes, at, log } = useWorkshop('pickles = "jail"\n');

  test(
    'a hostile pickle runs, reaches nothing, and the record says that it was allowed',
    async () => {
      const { body } = await post('/api/convert/cross', { ...STATE_DICT, input_path: 'attack.bin' });
      expect(body).toMatchObject({ success: true });
      const id = String(body['job_id']);
      const report = JSON.parse((await bytes(`/api/jobs/${id}/output/report.json`)).toString()) as object;
      expect(report).toEqual({
        wrote: 'no: FileNotFoundError',
        read: 'no: FileNotFoundError',
        listed: 'no: FileNotFoundError',
        network: expect.stringMatching(UNREACHED),
        outside: expect.stringMatching(UNREACHED),
        input: expect.stringMatching(READ_ONLY),
        request: expect.stringMatching(READ_ONLY),
        processes: expect.any(Number),
        parent: expect.any(String),
      });
      expect((report as { processes: number }).processes).toBeLessThan(8);
      expect(existsSync(at('models/pwned'))).toBe(false);
      expect(reached).toBe(0);
      const record = await openJobRecord(new Uint8Array(await bytes(`/api/jobs/${id}/record`)));
      expect(record.parameters.get('pickles')).toBe('jail');
      expect(record.barriers).toEqual(expect.arrayContaining(['files', 'network', 'processes']));
    },
    10 * MINUTES,
  );

  test.each([
    ['ends its process', 'exit.bin', 500, 'job_failed'],
    ['raises', 'raise.bin', 400, 'unsupported_model_format'],
  ] as const)(
    'one that %s fails as any job fails',
    async (_, name, status, code) => {
      const answer = await post('/api/convert/cross', { ...STATE_DICT, input_path: name });
      expect(answer).toMatchObject({ status, body: { error: { code } } });
      expect(JSON.stringify(answer.body) + log()).not.toContain(CANARY);
    },
    10 * MINUTES,
  );

  test(
    'a whole pickled module is converted, run beside the original; the path of the original’s code is an alias',
    async () => {
      const { body } = await post('/api/assets/litert/convert', {
        model_path: 'module.pt',
        input_shape: [1, 3, 8, 8],
      });
      expect(body).toMatchObject({ success: true, format: 'tflite', result: { checked: true } });
    },
    10 * MINUTES,
  );
});
