// The table of cross paths: the 14 ids, and that what it says of each is true of this machine's
// environment.

import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  CROSS_PATH_IDS,
  CROSS_PATHS,
  crossPaths,
  crossProgram,
  packagesOf,
} from '../../../../src/workshop/python/cross-paths.ts';
import { PythonEnvironment } from '../../../../src/workshop/python/environment.ts';
import { fakePython } from '../../../fixtures/workshop/fake-python.ts';

const WITHOUT = ['onnx_to_tensorrt', 'onnx_to_keras', 'onnx_to_vitis', 'onnx_to_rknn'];
const ON_LINUX = { platform: 'linux-x64' };

test('the 14 ids of the routes, in their order', () => {
  expect(CROSS_PATH_IDS).toEqual(
    (
      'pytorch_to_onnx onnx_to_pytorch safetensors_to_pytorch pytorch_to_safetensors onnx_to_tflite onnx_to_tensorrt ' +
      'keras_to_onnx onnx_to_keras pytorch_to_gguf gguf_to_onnx onnx_to_openvino onnx_to_vitis onnx_to_rknn pytorch_to_tflite_litert'
    ).split(' '),
  );
});

test("the seed's own words are in the notes", () => {
  const notes = CROSS_PATH_IDS.map((id) => CROSS_PATHS[id].note).join('\n');
  for (const words of ['PyTorch to ONNX', 'PyTorch to OpenVINO', 'HuggingFace to GGUF'])
    expect(notes).toContain(words);
});

test('every package a path needs is in the lock', () => {
  const environment = new PythonEnvironment();
  const locked = new Set(environment.lock.packages.map(({ name }) => name));
  for (const id of CROSS_PATH_IDS.filter((each) => !WITHOUT.includes(each)))
    expect(
      packagesOf(id).filter((name) => !locked.has(name)),
      id,
    ).toEqual([]);
});

test('without the environment: none is available, and each that could be says the command', async () => {
  const environment = new PythonEnvironment({ folder: '/nowhere/python', candidates: [], ...ON_LINUX });
  const { paths, total, available_count } = await crossPaths(environment, null);
  expect([total, available_count]).toEqual([14, 0]);
  for (const { id, note } of paths)
    if (WITHOUT.includes(id)) expect(note, id).toMatch(/^not here: /);
    else expect(note, id).toMatch(/needs torch, .*: run "assay workshop setup"$/);
});

test('with it: all that have a backend', async () => {
  const { folder, command, lockPath } = fakePython();
  try {
    const environment = new PythonEnvironment({
      folder: join(folder, 'env/python'),
      candidates: [command],
      lockPath,
      ...ON_LINUX,
    });
    await environment.create({ neededBytes: 1 });
    const { paths, available_count } = await crossPaths(environment, null);
    expect(available_count).toBe(10);
    expect(paths.filter(({ available }) => !available).map(({ id }) => id)).toEqual(WITHOUT);
    for (const { id, note } of paths) expect(note).toBe(CROSS_PATHS[id].note);
    // A job of none of them would be taken where the jail is too weak for it.
    const barred = await crossPaths(environment, 'no barrier');
    expect(barred.available_count).toBe(0);
    for (const { id, available, note } of barred.paths) {
      expect(available).toBe(false);
      expect(note).toBe(WITHOUT.includes(id) ? CROSS_PATHS[id].note : `${CROSS_PATHS[id].note}. no barrier`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a path without a backend is refused with its reason', async () => {
  const environment = new PythonEnvironment({ candidates: [] });
  await expect(crossProgram('onnx_to_vitis', environment)).rejects.toMatchObject({
    code: 'unsupported_parameter',
    param: 'path',
  });
  expect(() => packagesOf('onnx_to_rknn')).toThrow(/Rockchip/);
});

test('programs run isolated and offline; GGUF files are written by the built-in converter', async () => {
  const environment = new PythonEnvironment({ folder: '/nowhere/python', candidates: [] });
  const { command, environment: variables, tool } = await crossProgram('onnx_to_openvino', environment);
  expect(command.slice(0, 3)).toEqual(['/nowhere/python/bin/python', '-I', '-B']);
  expect(command.slice(3).map((each) => each.split('/').at(-1))).toEqual(['run.py', 'cross']);
  expect(variables).toMatchObject({ HF_HUB_OFFLINE: '1', DO_NOT_TRACK: '1' });
  expect(tool.files).toContain(environment.lock.path);
  const two = await crossProgram('pytorch_to_gguf', environment);
  expect(two.command[0]).toBe(process.execPath);
  expect(two.command[1]).toMatch(/workshop\/python\/program\.js$/);
  expect(two.command.slice(2)).toEqual(command);
});
