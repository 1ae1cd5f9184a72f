//! Outputs of a graph: which of them the plan computes, and how several become one value.

use paretune_kernels::ValueId;
use paretune_kernels::operator::Operator;

use super::importer::{Batching, Importer, Item};
use super::names::sanitize;
use super::options::Outputs;
use super::proto::GraphProto;
use crate::network::NetworkOutput;

impl Importer {
    /// Sets the plan's output to the chosen outputs of the graph. Several are flattened and joined.
    pub(super) fn outputs(
        &mut self,
        graph: &GraphProto,
        chosen: &Outputs,
    ) -> Result<Vec<NetworkOutput>, String> {
        let all: Vec<&str> = graph.output.iter().map(|info| info.name()).collect();
        let names: Vec<&str> = match chosen {
            Outputs::All => all.clone(),
            Outputs::First => all.iter().take(1).copied().collect(),
            Outputs::Named(names) => names.iter().map(String::as_str).collect(),
        };
        if let Some(name) = names.iter().find(|name| !all.contains(name)) {
            return Err(format!("it has no output `{name}`; there are {all:?}"));
        }
        if names.is_empty() {
            return Err("the graph has no output".into());
        }
        if *chosen == Outputs::First && all.len() > 1 {
            tracing::warn!(
                network = self.plan.name,
                "only the first output, `{}`, is used; ignored: {:?}",
                all[0],
                &all[1..]
            );
        }
        let alone = names.len() == 1;
        let mut values = Vec::with_capacity(names.len());
        let mut kept = Vec::with_capacity(names.len());
        for (index, &name) in names.iter().enumerate() {
            match self.output(name, alone) {
                Ok(value) => {
                    values.push(value);
                    kept.push(name);
                }
                // Further outputs are left out where nobody has asked for them by name.
                Err(problem) if index > 0 && *chosen == Outputs::All => {
                    tracing::warn!("output `{name}` is left out: {problem}");
                }
                Err(problem) => return Err(problem),
            }
        }
        let names = kept;
        let outputs = names.iter().zip(&values).map(|(name, &id)| NetworkOutput {
            name: (*name).to_string(),
            dims: self.dims(id).to_vec(),
        });
        let outputs = outputs.collect();
        self.plan.output = match values[..] {
            [value] => value,
            _ => self.joined(&values)?,
        };
        Ok(outputs)
    }

    fn output(&mut self, name: &str, alone: bool) -> Result<ValueId, String> {
        match self.items.get(name) {
            Some(Item::Activation(id)) => {
                let id = *id;
                self.whole_mode = false;
                match self.in_mode(id) {
                    Ok(value) => Ok(value),
                    Err(_) if self.batching != Batching::One || self.batch == Some(1) => Ok(id),
                    Err(_) => Err(format!(
                        "output `{name}` does not keep the batch axis first and whole, which is \
                         not supported with an open number of images"
                    )),
                }
            }
            Some(Item::Constant(tensor)) if !alone => {
                let tensor = tensor.clone();
                self.base = sanitize(name);
                self.whole_mode = false;
                self.constant_of(&tensor, tensor.dims.clone())
            }
            Some(Item::Constant(_)) => Err(format!("output `{name}` does not depend on the input")),
            Some(Item::Unusable(problem)) => Err(problem.clone()),
            None => Err(format!("output `{name}` is written by no node")),
        }
    }

    /// Adds the steps that write the numbers of several values one behind the other.
    fn joined(&mut self, values: &[ValueId]) -> Result<ValueId, String> {
        self.base = "outputs".into();
        let mut flat = Vec::with_capacity(values.len());
        for &value in values {
            let len = self.dims(value).iter().product();
            flat.push(self.emit("flat", Operator::Reshape, vec![value], vec![len])?);
        }
        let len = flat.iter().map(|&value| self.dims(value)[0]).sum();
        self.emit("", Operator::Concat { axis: 0 }, flat, vec![len])
    }
}
