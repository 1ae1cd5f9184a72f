//! Measures how much the network's output distribution changes if one layer or one channel group
//! alone is compressed.

use std::collections::BTreeMap;
use std::time::Instant;

use paretune_compress as compress;
use paretune_db::Record;
use paretune_evaluate::protocol::{Reply, Request};
use paretune_evaluate::workload::CALIBRATION_IMAGES;
use paretune_joint_space::decode::numerics;
use paretune_kernels::weights::{Grid, Numbers};
use paretune_names::numbers::{bits_value, offered};
use paretune_names::{CHANNELS, SPARSITY, layer_parameter};
use paretune_record::survey::{LayerLoss, Survey, Thinned};
use paretune_spaces::{CompiledSpace, Configuration, Value};

use super::{Surveyor, fraction, unfit};
use crate::error::SessionError;

/// Number of images on which losses are measured.
const LOSS_IMAGES: u64 = 96;
/// Sparsities at which layers are measured. The losses of other sparsities are derived from them.
const SURVEYED_SPARSITIES: [f64; 2] = [0.7, 0.9];
/// Factor by which the loss grows when another tenth of the weights becomes zero: the mean of
/// reconstructed layers.
const TENTH: f64 = 2.6;
/// Number of bits at which layers are measured. Losses at other bits below 8 are derived from it.
const FEW_BITS: Numbers = Numbers::Integer(Grid::Bits3);
/// Mean squared error of bfloat16, divided by that of 8 bits. The 8-bit step is the same for all
/// values of a channel: a 127th of four standard deviations, the usual largest of some hundred
/// values. The bfloat16 step is 2^-8 of the value itself.
const BF16_DISTORTION: f64 = 1.0 / 64.0;
/// Mean squared error of half precision, divided by that of 8 bits. Its steps are an eighth of
/// those of bfloat16.
const FP16_DISTORTION: f64 = BF16_DISTORTION / 64.0;

/// Mean squared error of normally distributed values on a grid of the given number of bits (after
/// Max, "Quantizing for minimum distortion", 1960). Losses scale with it.
const DISTORTION: [(f64, f64); 6] =
    [(1.58, 0.190), (2.0, 0.1188), (3.0, 0.0374), (4.0, 0.01154), (6.0, 0.00104), (8.0, 0.0001)];
/// Number of channel-pruned networks that are measured.
const THINNED: usize = 2;
/// Number types of weights that are combined with sparsity.
const WITH_ZEROS: [Numbers; 3] =
    [Numbers::F32, Numbers::Integer(Grid::Bits8), Numbers::Integer(Grid::Bits4)];
/// Exponent of the loss as a function of the removed fraction: few channels cost next to nothing,
/// the last ones everything.
const GROWTH: f64 = 2.0;

impl Surveyor<'_, '_> {
    /// Measures the losses of compression, the most informative ones first. If time runs out, the
    /// others are derived from them.
    pub(super) fn losses(
        &mut self,
        survey: &mut Survey,
        until: Instant,
        see: &mut dyn FnMut(f64),
    ) -> Result<(), SessionError> {
        // The loss of whole pruned networks gives the nats per unit of channel importance for all
        // groups at once.
        let mut plans: Vec<Probe> = vec![Probe::AllBits];
        plans.extend((0..survey.thinned.len().min(THINNED)).map(Probe::Thinned));
        let costs = match self.ask(&Request::Rank)? {
            Some(Reply::Ranked { costs }) => costs,
            _ => BTreeMap::new(),
        };
        let shares: Vec<Vec<f64>> = survey
            .groups
            .iter()
            .map(|group| {
                let name = format!("{CHANNELS}{}", group.name);
                let mut shares: Vec<f64> =
                    self.domain(&name).iter().filter_map(Value::as_f64).collect();
                shares.sort_by(f64::total_cmp);
                shares
            })
            .collect();
        let near = |group: usize, wanted: f64| {
            let inside = shares[group].iter().copied().filter(|share| *share < 1.0);
            inside.min_by(|left, right| (left - wanted).abs().total_cmp(&(right - wanted).abs()))
        };
        for wanted in [0.75, 0.5] {
            let groups = (0..shares.len())
                .filter_map(|group| Some(Probe::Share(group, near(group, wanted)?)));
            plans.extend(groups);
        }
        let eight: Vec<bool> = survey
            .layers
            .iter()
            .map(|layer| layer.schedules.iter().any(|time| time.schedule.bits == 8))
            .collect();
        let sparse: Vec<bool> = survey
            .layers
            .iter()
            .map(|layer| self.domain(&layer_parameter(&layer.name, SPARSITY)).len() > 1)
            .collect();
        plans.extend((0..eight.len()).filter(|layer| eight[*layer]).map(Probe::Bits));
        // Reconstruction is left out if preparing it takes most of the time left.
        let prepare =
            compress::seconds_to_prepare(&self.network.plan, CALIBRATION_IMAGES).map_err(unfit)?;
        let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
        let worthwhile = *self.pace.reconstructs.get_or_insert(2.0 * prepare < left);
        let few: Vec<bool> = survey
            .layers
            .iter()
            .map(|layer| offered(self.space, &layer.name).contains(&FEW_BITS))
            .collect();
        let sparsity = |share: f64| {
            (0..sparse.len())
                .filter(|layer| sparse[*layer])
                .map(move |layer| Probe::Sparsity(layer, share))
        };
        if worthwhile {
            plans.extend((0..few.len()).filter(|layer| few[*layer]).map(Probe::FewBits));
            plans.extend(sparsity(SURVEYED_SPARSITIES[0]));
        }
        plans.extend(
            (0..shares.len()).filter_map(|group| Some(Probe::Share(group, near(group, 0.875)?))),
        );
        plans.extend(
            (0..shares.len()).filter_map(|group| Some(Probe::Share(group, near(group, 0.25)?))),
        );
        if worthwhile {
            plans.extend(sparsity(SURVEYED_SPARSITIES[1]));
        }
        let mut found: Vec<(Probe, f64)> = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            see(fraction(index, plans.len()));
            if found.iter().any(|(known, _)| known == plan) {
                continue;
            }
            // The first measurement is always made, because the others fall back to it.
            if index > 0 && !self.pace.losses.may_go_on(until) {
                break;
            }
            self.pace.losses.done += 1;
            if let Some(loss) = self.loss(&plan.configuration(self.space, survey, &eight))? {
                found.push((*plan, loss));
            }
        }
        self.conclude(survey, &found, &shares, &costs, &eight);
        Ok(())
    }

    /// Derives the losses of all choices from the measured ones.
    fn conclude(
        &self,
        survey: &mut Survey,
        found: &[(Probe, f64)],
        shares: &[Vec<f64>],
        costs: &Costs,
        eight: &[bool],
    ) {
        let measured =
            |wanted: Probe| found.iter().find(|(probe, _)| *probe == wanted).map(|(_, loss)| *loss);
        let worth = worth(&survey.thinned, found, costs);
        for (index, (group, shares)) in survey.groups.iter_mut().zip(shares).enumerate() {
            let points: Vec<(f64, f64)> = found
                .iter()
                .filter_map(|(probe, loss)| match probe {
                    Probe::Share(group, share) if *group == index => Some((1.0 - share, *loss)),
                    _ => None,
                })
                .collect();
            if !points.is_empty() {
                group.shares =
                    shares.iter().map(|share| (*share, grown(&points, 1.0 - share))).collect();
            } else if let (Some(worth), Some(costs)) = (worth, costs.get(&group.name)) {
                let loss = |share: f64| Some((share, worth * cost(costs, share)?));
                group.shares = shares.iter().filter_map(|share| loss(*share)).collect();
            }
        }
        let layers = eight.iter().filter(|eight| **eight).count().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a handful of layers")]
        let fair = measured(Probe::AllBits).map(|loss| loss / layers as f64);
        for (index, layer) in survey.layers.iter_mut().enumerate() {
            layer.losses.push(LayerLoss { numbers: Numbers::F32, sparsity: 0.0, loss: 0.0 });
            let eight = measured(Probe::Bits(index)).or(fair).filter(|_| eight[index]);
            let few = measured(Probe::FewBits(index));
            let distortion = |bits: f64| {
                DISTORTION.iter().find(|(known, _)| *known == bits).map(|(_, error)| *error)
            };
            let mut rounded = vec![(Numbers::F32, 0.0)];
            for numbers in offered(self.space, &layer.name) {
                let by_few =
                    || Some(few? * distortion(numbers.bits())? / distortion(FEW_BITS.bits())?);
                let loss = match numbers {
                    Numbers::F32 => continue,
                    Numbers::Bf16 => Some(eight.unwrap_or(0.0) * BF16_DISTORTION),
                    Numbers::Fp16 => Some(eight.unwrap_or(0.0) * FP16_DISTORTION),
                    Numbers::Integer(Grid::Bits8) => eight,
                    Numbers::Integer(_) => by_few(),
                };
                let Some(mut loss) = loss else { continue };
                // Activations are rounded to 8 bits as well, so the loss is at least that of 8
                // bits.
                if numbers.is_integer() {
                    loss = loss.max(eight.unwrap_or(0.0));
                }
                layer.losses.push(LayerLoss { numbers, sparsity: 0.0, loss });
                rounded.push((numbers, loss));
            }
            let points: Vec<(f64, f64)> = SURVEYED_SPARSITIES
                .iter()
                .filter_map(|&share| Some((share, measured(Probe::Sparsity(index, share))?)))
                .collect();
            if points.is_empty() {
                continue;
            }
            let name = layer_parameter(&layer.name, SPARSITY);
            for sparsity in
                self.domain(&name).iter().filter_map(Value::as_f64).filter(|share| *share > 0.0)
            {
                let zeros = sparser(&points, sparsity);
                for &(numbers, loss) in
                    rounded.iter().filter(|(numbers, _)| WITH_ZEROS.contains(numbers))
                {
                    layer.losses.push(LayerLoss { numbers, sparsity, loss: loss + zeros });
                }
            }
        }
    }

    fn loss(&mut self, configuration: &Configuration) -> Result<Option<f64>, SessionError> {
        let key =
            self.runner.keyed("loss", &numerics(configuration)).with("loss-images", LOSS_IMAGES);
        if let Some(loss) =
            self.runner.store.get(&key.key())?.and_then(|record| record.value("loss"))
        {
            return Ok(Some(loss));
        }
        let request = Request::Loss { configuration: configuration.clone(), images: LOSS_IMAGES };
        let Some(Reply::Lost { loss }) = self.ask(&request)? else { return Ok(None) };
        let values = BTreeMap::from([("loss".to_owned(), loss)]);
        self.runner.store.put(&Record::measured(key, values, &[], env!("CARGO_PKG_VERSION")))?;
        Ok(Some(loss))
    }
}

/// One compression whose loss is measured alone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Probe {
    /// Quantize every layer to 8 bits.
    AllBits,
    /// Quantize one layer to 8 bits.
    Bits(usize),
    /// Quantize one layer to [`FEW_BITS`].
    FewBits(usize),
    /// Prune the weights of one layer to a sparsity.
    Sparsity(usize, f64),
    /// Keep a fraction of one channel group.
    Share(usize, f64),
    /// Keep the channels of one of the networks that were pruned by one threshold.
    Thinned(usize),
}

impl Probe {
    fn configuration(
        self,
        space: &CompiledSpace,
        survey: &Survey,
        eight: &[bool],
    ) -> Configuration {
        let mut wanted = Configuration::new();
        let name =
            |layer: usize, parameter: &str| layer_parameter(&survey.layers[layer].name, parameter);
        match self {
            Self::AllBits => {
                for layer in (0..eight.len()).filter(|layer| eight[*layer]) {
                    wanted.insert(name(layer, "bits"), Value::Int(8));
                }
            }
            Self::Bits(layer) => {
                wanted.insert(name(layer, "bits"), Value::Int(8));
            }
            Self::FewBits(layer) => {
                wanted.insert(name(layer, "bits"), bits_value(FEW_BITS));
            }
            Self::Sparsity(layer, share) => {
                wanted.insert(name(layer, "sparsity"), Value::Real(share));
            }
            Self::Thinned(index) => {
                for (group, share) in
                    survey.thinned.get(index).into_iter().flat_map(|thinned| &thinned.shares)
                {
                    wanted.insert(format!("{CHANNELS}{group}"), Value::Real(*share));
                }
            }
            Self::Share(group, share) => {
                wanted
                    .insert(format!("{CHANNELS}{}", survey.groups[group].name), Value::Real(share));
            }
        }
        space.decode(&space.closest(&wanted))
    }
}

/// Importance of the removed channels, by group and kept fraction.
type Costs = BTreeMap<String, Vec<(f64, f64)>>;

/// Returns the importance of the removed channels if a fraction is kept.
fn cost(costs: &[(f64, f64)], share: f64) -> Option<f64> {
    let nearest = costs.iter().min_by(|a, b| (a.0 - share).abs().total_cmp(&(b.0 - share).abs()));
    nearest.map(|(_, cost)| *cost)
}

/// Returns the loss in nats per image and unit of channel importance: the geometric mean over the
/// measured pruned networks.
fn worth(thinned: &[Thinned], found: &[(Probe, f64)], costs: &Costs) -> Option<f64> {
    let ratios = found.iter().filter_map(|(probe, loss)| {
        let Probe::Thinned(index) = probe else { return None };
        let shares = thinned.get(*index)?.shares.iter();
        let costs = shares.filter_map(|(group, share)| cost(costs.get(group)?, *share));
        let ratio = (loss / costs.sum::<f64>()).ln();
        ratio.is_finite().then_some(ratio)
    });
    let ratios: Vec<f64> = ratios.collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful of networks")]
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    (!ratios.is_empty()).then(|| mean.exp())
}

/// Interpolates or extrapolates the loss after removing a fraction along a power law, from the
/// nearest measured fraction.
fn grown(points: &[(f64, f64)], removed: f64) -> f64 {
    if removed <= 0.0 {
        return 0.0;
    }
    let nearest = points
        .iter()
        .min_by(|a, b| (a.0.ln() - removed.ln()).abs().total_cmp(&(b.0.ln() - removed.ln()).abs()));
    nearest.map_or(f64::MAX, |(seen, loss)| loss * (removed / seen).powf(GROWTH))
}

/// Interpolates or extrapolates the loss at a sparsity exponentially, from the measured sparsities.
fn sparser(points: &[(f64, f64)], share: f64) -> f64 {
    match points {
        [(low, less), (high, more)] if *less > 0.0 && more > less && share > *low => {
            less * (more / less).powf((share - low) / (high - low))
        }
        [(seen, loss), ..] => loss * TENTH.powf(10.0 * (share - seen)),
        [] => f64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_grow_with_zeros() {
        let near = |found: f64, wanted: f64| {
            assert!((found / wanted - 1.0).abs() < 1e-9, "{found} {wanted}")
        };
        near(sparser(&[(0.7, 0.1), (0.9, 0.9)], 0.8), 0.3);
        near(sparser(&[(0.7, 0.1), (0.9, 0.9)], 0.95), 0.9 * 3.0_f64.sqrt());
        near(sparser(&[(0.7, 0.1), (0.9, 0.9)], 0.6), 0.1 / TENTH);
        near(sparser(&[(0.7, 0.1)], 0.8), 0.1 * TENTH);
    }

    #[test]
    fn what_channels_are_worth_is_read_off_thinned_networks() {
        let thinned = |shares: &[(&str, f64)]| Thinned {
            work: 0.5,
            shares: shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect(),
        };
        let networks = [thinned(&[("a", 0.5), ("b", 0.75)]), thinned(&[("a", 0.75)])];
        let costs: Costs = [
            ("a".to_owned(), vec![(0.5, 3.0), (0.75, 1.0), (1.0, 0.0)]),
            ("b".to_owned(), vec![(0.5, 4.0), (0.75, 1.0), (1.0, 0.0)]),
        ]
        .into();
        let found = [(Probe::AllBits, 9.0), (Probe::Thinned(0), 0.4), (Probe::Thinned(1), 0.1)];
        let found = worth(&networks, &found, &costs).expect("two networks were looked at");
        assert!((found - 0.1).abs() < 1e-12, "{found}");
        assert_eq!(worth(&networks, &[(Probe::AllBits, 9.0)], &costs), None);
    }

    #[test]
    fn losses_follow_what_was_seen_nearest() {
        let points = [(0.25, 0.1), (0.5, 1.0)];
        assert_eq!(grown(&points, 0.25), 0.1);
        assert_eq!(grown(&points, 0.5), 1.0);
        assert_eq!(grown(&points, 0.0), 0.0);
        assert!((grown(&points, 0.75) - 2.25).abs() < 1e-12);
        assert!((grown(&points, 0.125) - 0.025).abs() < 1e-12);
    }
}
