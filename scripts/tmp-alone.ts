import { openDemo, request } from '../test/fixtures/engine/demo-engine.ts';
async function main(){
for (const name of ['demo-context','demo-chat'] as const) {
  const engine = await openDemo(name, { slots: 4 });
  console.log(name, engine.info.numerics, engine.info.contextLength);
  const run = async (over: any) => { const ev=[]; for await (const e of engine.generate(request(over), new AbortController().signal)) ev.push(e); return ev; };
  const text='once upon a time there was a key '.repeat(8);
  const ask = (scope: string, seed: number, alone: boolean) => run({ prompt:{kind:'text', text: text+seed}, alone, tokens:true, receipt:true, n:2, maxTokens: 64, cacheScope: scope, logprobs: 0, sampling:{temperature:1.4,topP:1,topK:0,minP:0,presencePenalty:0,frequencyPenalty:0,repeatPenalty:1, seed}});
  const t0=performance.now();
  const first = await Promise.all(Array.from({length:12},(_, i)=>ask('a'+(i%3), i, true)));
  console.log('12 alone', performance.now()-t0);
  // with load
  const load = Array.from({length:12},(_, i)=>ask('b'+i, 100+i, false));
  const second = await Promise.all(Array.from({length:12},(_, i)=>ask('c'+(i%3), i, true)));
  await Promise.all(load);
  const strip=(ev:any[])=>JSON.stringify(ev);
  let eq=0; first.forEach((ev,i)=>{ if(strip(ev)===strip(second[i])) eq++; });
  console.log('bit-equal', eq, 'of 12', (first[0]![0] as any), engine.stats());
  const shared = await Promise.all(Array.from({length:12},(_, i)=>ask('d'+(i%3), i, false)));
  const toks=(ev:any[])=>JSON.stringify(ev.map(e=>e.tokens));
  console.log('shared tokens equal', shared.filter((ev,i)=>toks(ev)===toks(first[i]!)).length, 'bits', shared.filter((ev,i)=>JSON.stringify(ev.slice(1))===JSON.stringify(first[i]!.slice(1))).length);
  const ids=[0,1].map(k=>first[0]!.flatMap((e:any)=>e.index===k?(e.tokens??[]):[]));
  const forced=await run({ prompt:{kind:'text', text: text+0}, alone:true, recorded:[ids[0], ids[1]!.map((t,i)=>i===5?t+1:t)], receipt:true, n:2, maxTokens: 64, sampling:{temperature:1.4,topP:1,topK:0,minP:0,presencePenalty:0,frequencyPenalty:0,repeatPenalty:1, seed:0}});
  console.log(JSON.stringify(forced.filter((e:any)=>e.kind==='finish')));
  await engine.close();
}}
main();
