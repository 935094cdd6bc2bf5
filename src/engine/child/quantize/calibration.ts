// The text that an importance matrix is collected over: prose, dialogue, code, data and several languages, so
// that no direction of the activations is left out. A change of it changes the models that are quantised with
// it: raise CONVERTER.

export const CALIBRATION_TEXT = `
The harbour was quiet before sunrise. Two fishermen mended a net on the quay and talked about the weather, the price of
diesel and a daughter who had moved to the city. "She calls every Sunday," said the older one, "and every Sunday she asks
whether I have seen the doctor." The other laughed, knotted the cord and cut it with his teeth.

Photosynthesis converts light energy into chemical energy. In the light-dependent reactions, chlorophyll absorbs photons,
water is split and oxygen is released; the Calvin cycle then fixes carbon dioxide into sugars. The rate depends on light
intensity, temperature and the concentration of CO2, and saturates when the enzymes cannot work faster.

Question: A train leaves at 14:35 and arrives at 17:10. How long does the journey take?
Answer: From 14:35 to 17:10 there are 2 hours and 35 minutes, that is 155 minutes.

User: Can you explain what a hash function is, in simple words?
Assistant: A hash function takes data of any length and gives back a short value of fixed length. The same data always gives
the same value, a small change gives a very different one, and it is practically impossible to find data for a given value.
That is why it is used to check downloads, to store passwords and to sign documents.

def quicksort(items):
    """Return a sorted copy of a list."""
    if len(items) <= 1:
        return list(items)
    pivot, *rest = items
    smaller = [x for x in rest if x < pivot]
    larger = [x for x in rest if x >= pivot]
    return quicksort(smaller) + [pivot] + quicksort(larger)

SELECT customer.name, SUM(orders.total) AS revenue FROM customer JOIN orders ON orders.customer_id = customer.id
WHERE orders.created_at >= '2024-01-01' GROUP BY customer.name HAVING SUM(orders.total) > 1000 ORDER BY revenue DESC;

{"name": "get_weather", "arguments": {"city": "Lisbon", "unit": "celsius", "days": [1, 2, 3]}, "strict": true, "note": null}

for (let i = 0; i < rows.length; i++) {
  const { id, price = 0 } = rows[i];
  if (price > limit) throw new RangeError(\`row \${id}: \${price} exceeds \${limit}\`);
}

The committee approved the budget for the next fiscal year by nine votes to four. Revenue is expected to grow by 3.2 percent,
mainly from property taxes, while spending on roads, schools and public safety rises by 4.1 percent. The deficit of 12.7
million will be covered from reserves. Critics said the plan postpones difficult decisions; the mayor disagreed.

Die Vorlesung beginnt um zehn Uhr im großen Hörsaal. Wer zu spät kommt, setzt sich bitte leise in die hinteren Reihen. Am Ende
werden die Übungsblätter verteilt, deren Lösungen bis nächsten Donnerstag abzugeben sind.

Le musée est fermé le mardi. Les visiteurs peuvent acheter leurs billets en ligne ou à l'entrée, et les enfants de moins de
douze ans ne paient pas. Une exposition sur les cartes anciennes ouvrira au printemps.

El río nace en las montañas y atraviesa tres provincias antes de llegar al mar. En verano su caudal disminuye tanto que se puede
cruzar a pie; en primavera, en cambio, inunda los campos de arroz.

La ricetta è semplice: tagliate i pomodori, aggiungete olio, sale e basilico, e lasciate riposare per mezz'ora prima di servire.

Москва стоит на реке. Зимой дни короткие, и снег лежит до апреля; летом по вечерам люди гуляют в парках до поздней ночи.

今天的会议讨论了三个问题：预算、时间表和人员安排。大家同意下周一之前提交新的方案。
東京の朝は早い。駅前の店が開く前から、人々は静かに列を作って電車を待っている。
오늘은 비가 와서 우산을 챙겼다. 버스는 늦게 왔지만 약속에는 늦지 않았다.
يبدأ العمل في الثامنة صباحا وينتهي في الرابعة بعد الظهر، ويوم الجمعة عطلة.

1. Preheat the oven to 180 °C. 2. Mix 250 g of flour, 125 g of butter and 80 g of sugar. 3. Roll out the dough, cut it into
shapes and bake for 12 minutes. 4. Let the biscuits cool on a rack; they become crisp only then.

Theorem. There are infinitely many primes. Proof. Suppose p1, p2, ..., pn were all of them and let N = p1 p2 ... pn + 1. No pi
divides N, since the remainder is 1. Hence N has a prime factor that is not in the list, a contradiction.

Dear Ms Alvarez, thank you for your letter of 3 March. We regret that the parcel arrived damaged and will send a replacement at
no charge. Please keep the original packaging until our courier collects it. With kind regards, Customer Service.

The patient, a 54-year-old woman, presented with chest pain radiating to the left arm. Blood pressure was 150/95 mmHg, heart rate
98 per minute. An electrocardiogram showed ST elevation in leads II, III and aVF; she was transferred for angiography.

ERROR 2024-05-17T08:41:09Z worker[3]: connection to 10.0.4.17:5432 timed out after 30000 ms (attempt 2 of 5); retrying in 4 s

She had never believed in ghosts, yet the footsteps on the stairs were there again, slow and regular, one for each tick of the
clock in the hall. When she opened the door there was only moonlight, and on the third step a wet leaf.
`;
