//! Distributes channel pruning over the groups of a network so that it keeps a given fraction of
//! its multiply-adds.
//!
//! One global threshold compares all groups by the loss per multiply-add saved. Channels are
//! removed in blocks of the size that kernels prefer. Savings of a block depend on the blocks
//! removed before, so blocks are removed one by one, the cheapest for its savings first.

use std::collections::BTreeMap;

use paretune_kernels::Plan;
use paretune_kernels::executor::conv_problem;
use paretune_kernels::operator::Operator;

use super::channels::scores;
use super::error::CompressError;
use super::groups::{Group, groups};
use super::mask::ChannelMask;
use super::recipe::ChannelCriterion;
use crate::calibration::Calibration;

/// Multiply-adds of a layer as a function of the channels kept.
struct Work {
    input: usize,
    output: usize,
    /// Multiply-adds per pair of input and output channels; per output channel if `single`.
    each: f64,
    /// Whether each output channel is counted alone: depthwise layers and grouped ones, which
    /// cannot be pruned.
    single: bool,
}

/// Returns, for each prunable group, pairs of kept fraction and total score of the removed
/// channels, one for each of [`super::ChannelGroup::choices`] in ascending order.
///
/// Scores are losses up to a factor that is common to the network.
///
/// # Errors
///
/// Fails like [`allocate_channels`].
pub fn channel_costs(
    plan: &Plan,
    calibration: &Calibration,
    criterion: ChannelCriterion,
) -> Result<BTreeMap<String, Vec<(f64, f64)>>, CompressError> {
    calibration.check(plan)?;
    let mut costs = BTreeMap::new();
    for group in groups(plan)?.into_iter().filter(|group| group.info.prunable()) {
        let mut scores = scores(plan, calibration, &group, criterion)?;
        scores.sort_by(f64::total_cmp);
        let width = group.info.width;
        let cost = |kept: usize| (kept as f64 / width as f64, scores[..width - kept].iter().sum());
        costs.insert(group.info.name.clone(), group.info.choices().into_iter().map(cost).collect());
    }
    Ok(costs)
}

/// Returns the fraction of channels to keep by group, so that about the fraction `work` (above 0,
/// at most 1) of the network's multiply-adds remains.
///
/// Each fraction is one of the group's [`super::ChannelGroup::choices`]. Groups that keep all their
/// channels are not listed.
///
/// # Errors
///
/// Fails like [`super::apply`] with this [`ChannelCriterion`].
pub fn allocate_channels(
    plan: &Plan,
    calibration: &Calibration,
    criterion: ChannelCriterion,
    work: f64,
) -> Result<BTreeMap<String, f64>, CompressError> {
    calibration.check(plan)?;
    let groups: Vec<Group> =
        groups(plan)?.into_iter().filter(|group| group.info.prunable()).collect();
    let steps = plan.steps.iter().filter_map(|step| {
        let Operator::Conv(conv) = &step.operator else { return None };
        let problem = conv_problem(plan, step, 1)?;
        let pairs = (problem.in_channels * problem.out_channels) as f64;
        let single = conv.groups > 1;
        let units = if single { problem.out_channels as f64 } else { pairs };
        let each = problem.multiply_adds() as f64 / units.max(1.0);
        Some(Work { input: step.inputs[0], output: step.output, each, single })
    });
    let steps: Vec<Work> = steps.collect();
    let count = |keep: &ChannelMask, value: usize| {
        keep.of(value).iter().filter(|&&keep| keep).count() as f64
    };
    let total = |keep: &ChannelMask| -> f64 {
        let pairs = |step: &Work| if step.single { 1.0 } else { count(keep, step.input) };
        steps.iter().map(|step| step.each * count(keep, step.output) * pairs(step)).sum()
    };
    let mut keep = ChannelMask::full(plan);
    let all = total(&keep);
    // By group: channels, worst first, their scores, and the number removed.
    let mut queues = Vec::with_capacity(groups.len());
    for group in &groups {
        let scores = scores(plan, calibration, group, criterion)?;
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        queues.push((order, scores, 0));
    }
    while total(&keep) > work * all {
        let now = total(&keep);
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (group, (order, scores, gone))) in groups.iter().zip(&queues).enumerate() {
            let width = group.info.width;
            let fewer = group.info.choices().into_iter().rfind(|&kept| kept < width - gone);
            let Some(next) = fewer else { continue };
            let leaving = &order[*gone..width - next];
            let cost: f64 = leaving.iter().map(|&channel| scores[channel]).sum();
            let mut smaller = keep.clone();
            leaving.iter().for_each(|&channel| smaller.remove(&group.channels[channel]));
            let ratio = cost / (now - total(&smaller)).max(f64::MIN_POSITIVE);
            if best.is_none_or(|(least, ..)| ratio < least) {
                best = Some((ratio, index, next));
            }
        }
        let Some((_, index, next)) = best else { break };
        let (order, _, gone) = &mut queues[index];
        let width = groups[index].info.width;
        order[*gone..width - next]
            .iter()
            .for_each(|&channel| keep.remove(&groups[index].channels[channel]));
        *gone = width - next;
    }
    let fractions = groups.iter().zip(&queues).filter(|(_, (.., gone))| *gone > 0);
    Ok(fractions
        .map(|(group, (.., gone))| {
            let width = group.info.width;
            (group.info.name.clone(), (width - gone) as f64 / width as f64)
        })
        .collect())
}
