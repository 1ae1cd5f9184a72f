//! Recorded tables: every configuration of a space with its measured metrics, as CSV.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;

use paretune_spaces::{CompiledSpace, Domain, Parameter, Point, Space, SpaceError, Value};

use crate::limit::{Limit, Relation};
use crate::objective::{Direction, Objective, Scale};
use crate::problem::{Problem, ProblemError};

/// Roles of the columns of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    /// Columns that are objectives to be minimized.
    pub minimize: Vec<String>,
    /// Columns that are objectives to be maximized.
    pub maximize: Vec<String>,
    /// Objectives that are compared on a logarithmic scale.
    pub log: Vec<String>,
    /// Parameters. If empty, every column before the first one with another role is a parameter.
    pub params: Vec<String>,
    /// Column and word that mark usable rows; without them, all rows are usable.
    pub valid: Option<(String, String)>,
    /// Limits on the values of columns.
    pub limits: Vec<Limit>,
}

/// Reason for which a table cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file is not readable as CSV.
    #[error("not a readable table: {0}")]
    Csv(#[from] csv::Error),
    /// The table does not have a column that was named.
    #[error("there is no column `{name}`; the columns are {columns}")]
    Column {
        /// Name of the missing column.
        name: String,
        /// Names of the table's columns, separated by commas.
        columns: String,
    },
    /// The roles of the columns do not make a problem.
    #[error("{0}")]
    Roles(String),
    /// The value of a cell cannot be used.
    #[error("row {row}, column `{column}`: {problem}")]
    Cell {
        /// Number of the row, from 1, without the header.
        row: usize,
        /// Name of the cell's column.
        column: String,
        /// Description of the error in the cell.
        problem: String,
    },
    /// The columns make an inconsistent problem.
    #[error(transparent)]
    Problem(#[from] ProblemError),
    /// The parameters do not make a space.
    #[error(transparent)]
    Space(#[from] SpaceError),
}

/// Recorded table as a problem with all its answers.
#[derive(Clone, Debug)]
pub struct Table {
    /// Problem whose space consists of the rows.
    pub problem: Problem,
    /// Value of each metric, by the number of the point in the space; `None` if the row is not
    /// usable.
    pub answers: Vec<Option<Vec<f64>>>,
}

impl Columns {
    fn named(&self) -> impl Iterator<Item = &str> {
        let valid = self.valid.iter().map(|(c, _)| c.as_str());
        let limits = self.limits.iter().map(|l| l.metric.as_str());
        self.minimize
            .iter()
            .chain(&self.maximize)
            .chain(&self.log)
            .map(String::as_str)
            .chain(valid)
            .chain(limits)
    }

    fn objectives(&self) -> Result<Vec<Objective>, TableError> {
        let scale =
            |name: &String| if self.log.contains(name) { Scale::Log } else { Scale::Linear };
        let objective = |direction| {
            move |name: &String| Objective { name: name.clone(), direction, scale: scale(name) }
        };
        let minimize = self.minimize.iter().map(objective(Direction::Minimize));
        let objectives: Vec<Objective> =
            minimize.chain(self.maximize.iter().map(objective(Direction::Maximize))).collect();
        match self.log.iter().find(|l| !objectives.iter().any(|o| o.name == **l)) {
            Some(name) => Err(TableError::Roles(format!(
                "`{name}` is to be on a log scale, but is no objective"
            ))),
            None => Ok(objectives),
        }
    }
}

impl Table {
    /// Reads CSV with a header line.
    ///
    /// # Errors
    /// Returns an error if the text is not CSV or does not fit `columns`, or if two rows have the
    /// same parameters.
    pub fn read(input: impl Read, columns: &Columns) -> Result<Table, TableError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(input);
        let header: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
        let find = |name: &str| {
            header.iter().position(|h| h == name).ok_or_else(|| TableError::Column {
                name: name.to_owned(),
                columns: header.join(", "),
            })
        };
        let named = columns.named().map(find).collect::<Result<Vec<usize>, _>>()?;
        let params = if columns.params.is_empty() {
            (0..named.iter().copied().min().unwrap_or(0)).collect()
        } else {
            columns.params.iter().map(|p| find(p)).collect::<Result<Vec<usize>, _>>()?
        };
        if params.is_empty() {
            return Err(TableError::Roles(
                "no column is left for the parameters: name them".to_owned(),
            ));
        }
        if let Some(both) = params.iter().find(|p| named.contains(p)) {
            let name = &header[*both];
            return Err(TableError::Roles(format!(
                "`{name}` cannot be a parameter and something else"
            )));
        }
        let objectives = columns.objectives()?;
        let mut metrics: Vec<String> = objectives.iter().map(|o| o.name.clone()).collect();
        for limit in &columns.limits {
            if !metrics.contains(&limit.metric) {
                metrics.push(limit.metric.clone());
            }
        }
        let measured = metrics.iter().map(|m| find(m)).collect::<Result<Vec<usize>, _>>()?;
        let valid = match &columns.valid {
            Some((column, word)) => Some((find(column)?, word.as_str())),
            None => None,
        };
        let mut cells: Vec<Vec<Value>> = vec![Vec::new(); params.len()];
        let mut answers = Vec::new();
        for (number, record) in reader.records().enumerate() {
            let record = record?;
            for (column, values) in params.iter().zip(&mut cells) {
                values.push(Value::parse(&record[*column]));
            }
            let usable = valid.is_none_or(|(column, word)| record[column] == *word);
            let values = measured.iter().map(|m| number_in(&record[*m], number + 1, &header[*m]));
            answers.push(if usable {
                values.collect::<Result<Option<Vec<f64>>, _>>()?
            } else {
                None
            });
        }
        let names: Vec<String> = params.iter().map(|p| header[*p].clone()).collect();
        let (space, points) = space_of(&names, &cells)?;
        let problem = Problem::new(Arc::new(space), metrics, objectives, columns.limits.clone())?;
        Table::assemble(problem, points, answers)
    }

    fn assemble(
        problem: Problem,
        points: Vec<Point>,
        rows: Vec<Option<Vec<f64>>>,
    ) -> Result<Table, TableError> {
        let mut answers: Vec<Option<Option<Vec<f64>>>> =
            vec![None; problem.space.len().unwrap_or(0) as usize];
        for (number, (point, row)) in points.iter().zip(rows).enumerate() {
            let slot =
                problem.space.index(point).and_then(|i| answers.get_mut(usize::try_from(i).ok()?));
            match slot {
                Some(slot @ None) => *slot = Some(row),
                _ => {
                    let problem = "another row has the same parameters".to_owned();
                    return Err(TableError::Cell {
                        row: number + 1,
                        column: "(all parameters)".into(),
                        problem,
                    });
                }
            }
        }
        let answers: Vec<Option<Vec<f64>>> = answers.into_iter().map(Option::flatten).collect();
        if answers.iter().all(Option::is_none) {
            return Err(TableError::Roles("no row of the table is usable".to_owned()));
        }
        Ok(Table { problem, answers })
    }

    /// Returns the recorded answer of a point.
    #[must_use]
    pub fn answer(&self, point: &Point) -> Option<&[f64]> {
        let index = usize::try_from(self.problem.space.index(point)?).ok()?;
        self.answers.get(index)?.as_deref()
    }
}

/// Parses a number; `None` for an empty cell or one that says that there is no number.
fn number_in(cell: &str, row: usize, column: &str) -> Result<Option<f64>, TableError> {
    if cell.is_empty() {
        return Ok(None);
    }
    match cell.parse::<f64>() {
        Ok(value) => Ok(value.is_finite().then_some(value)),
        Err(_) => Err(TableError::Cell {
            row,
            column: column.to_owned(),
            problem: format!("`{cell}` is no number"),
        }),
    }
}

/// Builds a space that consists of the rows. Columns of 0 and 1 or of truth values are switches,
/// other numbers are sizes, and everything else is a choice.
fn space_of(
    names: &[String],
    cells: &[Vec<Value>],
) -> Result<(CompiledSpace, Vec<Point>), TableError> {
    let mut space = Space::new();
    let mut points = vec![Vec::with_capacity(names.len()); cells.first().map_or(0, Vec::len)];
    for (name, column) in names.iter().zip(cells) {
        let number = |v: &Value| matches!(v, Value::Int(_) | Value::Real(_));
        let numeric = column.iter().all(number);
        let whole = column.iter().all(|v| matches!(v, Value::Int(_)));
        // One type per column makes equal numbers equal values.
        let unify = |v: &Value| match v {
            Value::Int(i) if numeric && !whole => Value::from(*i as f64),
            v if !numeric && number(v) => Value::Text(v.to_string()),
            v => v.clone(),
        };
        let column: Vec<Value> = column.iter().map(unify).collect();
        let values: Vec<Value> =
            column.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        for (point, value) in points.iter_mut().zip(&column) {
            let index = values.binary_search(value).unwrap_or(usize::MAX);
            point.push(u16::try_from(index).unwrap_or(paretune_spaces::INACTIVE));
        }
        // The values rise, so that a domain of any kind keeps their indices.
        space.parameters.push(Parameter::new(column_name(name), Domain::infer(values)));
    }
    let points: Vec<Point> = points.into_iter().map(Point::new).collect();
    Ok((CompiledSpace::from_rows(space, points.clone())?, points))
}

/// Converts a header to a parameter's name, with `_` for characters that formulas cannot spell.
fn column_name(header: &str) -> String {
    let spelled: String = header
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' })
        .collect();
    if spelled.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        spelled
    } else {
        format!("_{spelled}")
    }
}

/// Parses a limit such as `time_ms<2.5`. `<=` and `>=` are read as `<` and `>`.
///
/// # Errors
/// Returns an error if the text is not a column, a sign and a number.
pub fn parse_limit(text: &str) -> Result<Limit, TableError> {
    let wrong =
        || TableError::Roles(format!("`{text}` is no limit: write COLUMN<NUMBER or COLUMN>NUMBER"));
    let at = text.find(['<', '>']).ok_or_else(wrong)?;
    let relation = if text[at..].starts_with('<') { Relation::Less } else { Relation::Greater };
    let value =
        text[at + 1..].trim_start_matches('=').trim().parse::<f64>().map_err(|_| wrong())?;
    let metric = text[..at].trim().to_owned();
    if metric.is_empty() || !value.is_finite() {
        Err(wrong())
    } else {
        Ok(Limit { metric, relation, value })
    }
}
