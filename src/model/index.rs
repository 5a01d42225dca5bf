//! Who makes and who uses each value of a graph.

use std::collections::{BTreeSet, HashMap};

use super::{Graph, Initializer, NodeExt, TensorType};
use crate::proto::{GraphProto, NodeProto};

/// A node, by its position in the graph's file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// A named value of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(usize);

impl ValueId {
    /// A dense number, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Producer {
    /// Output `slot` of a node.
    Node(NodeId, usize),
    /// A graph input, by position; it may have an initializer as its default.
    Input(usize),
    /// An initializer that is no input, by position.
    Initializer(usize),
    /// An initializer of the main graph, seen from the algorithm of a training info.
    Outer,
}

/// A value of a graph.
#[derive(Debug)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub producer: Producer,
    /// The node inputs that read it, in file order.
    pub consumers: Vec<(NodeId, usize)>,
    /// Whether it is an output of the graph.
    pub is_output: bool,
    /// The nodes in whose subgraphs it is read.
    pub captured_by: Vec<NodeId>,
    /// Its type, as far as the file tells.
    pub tensor_type: Option<TensorType>,
}

/// A graph that no runtime could execute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The same name is given twice.
    #[error("'{name}' is defined twice, the second time by {by}")]
    DefinedTwice {
        /// The value.
        name: String,
        /// The second definition.
        by: String,
    },
    /// A name that nothing defines.
    #[error("{by} reads '{name}', which nothing defines")]
    Undefined {
        /// The value.
        name: String,
        /// Who reads it.
        by: String,
    },
    /// A node in front of one that it needs.
    #[error(
        "{node} reads '{name}', which only {maker} makes, and that stands behind it: ONNX has nodes in an order in which they can be executed"
    )]
    Unsorted {
        /// The reader.
        node: String,
        /// The value.
        name: String,
        /// The node that makes it.
        maker: String,
    },
    /// Nodes that wait for each other.
    #[error("the graph has a cycle through {node}")]
    Cycle {
        /// One node of the cycle.
        node: String,
    },
}

/// The index of a graph: producers, consumers, outputs, captures by subgraphs, and an order of execution.
#[derive(Debug)]
pub struct Index {
    values: Vec<Value>,
    by_name: HashMap<String, ValueId>,
    order: Vec<NodeId>,
}

impl Index {
    /// Indexes `graph`, which may read `outer` as well as its own values.
    pub(super) fn new(graph: &Graph, outer: &[Initializer]) -> Result<Self, IndexError> {
        let mut index = Self { values: Vec::new(), by_name: HashMap::new(), order: Vec::new() };
        index.define_all(graph, outer)?;
        index.use_all(graph)?;
        index.order = index.sort(graph)?;
        Ok(index)
    }

    /// The value of that name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        self.values.iter().enumerate().map(|(i, value)| (ValueId(i), value))
    }

    /// The nodes in an order of execution; file order wherever that is one.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// The value that `node` reads at `slot`; `None` where the input is absent.
    pub fn input(&self, node: &NodeProto, slot: usize) -> Option<ValueId> {
        node.input_name(slot).and_then(|name| self.find(name))
    }

    /// All values that `node` reads itself.
    pub fn inputs(&self, node: &NodeProto) -> impl Iterator<Item = ValueId> {
        (0..node.input.len()).filter_map(|slot| self.input(node, slot))
    }

    /// All values that a node of `graph` reads, in its subgraphs too.
    pub fn reads(&self, graph: &Graph, id: NodeId) -> impl Iterator<Item = ValueId> {
        let node = &graph.nodes()[id.0];
        let captured: BTreeSet<&str> = captured(node);
        let captured: Vec<ValueId> = captured.into_iter().filter_map(|name| self.find(name)).collect();
        self.inputs(node).chain(captured)
    }

    /// Whether anything reads a value: a node, a node's subgraph, or who runs the graph.
    pub fn is_read(&self, id: ValueId) -> bool {
        let value = self.value(id);
        value.is_output || !value.consumers.is_empty() || !value.captured_by.is_empty()
    }

    /// The node input that alone reads a value.
    pub fn only_reader(&self, id: ValueId) -> Option<(NodeId, usize)> {
        let value = self.value(id);
        match value.consumers.as_slice() {
            [reader] if !value.is_output && value.captured_by.is_empty() => Some(*reader),
            _ => None,
        }
    }

    /// The node that makes a value, and at which slot.
    pub fn maker(&self, id: ValueId) -> Option<(NodeId, usize)> {
        match self.value(id).producer {
            Producer::Node(node, slot) => Some((node, slot)),
            _ => None,
        }
    }

    /// The node of the default domain's `op_type`, among the graph's `nodes`, that makes a value.
    pub fn made_by<'n>(
        &self,
        nodes: &'n [NodeProto],
        value: ValueId,
        op_type: &str,
    ) -> Option<(NodeId, &'n NodeProto)> {
        let (id, _) = self.maker(value)?;
        let node = &nodes[id.0];
        node.is_onnx(op_type).then_some((id, node))
    }

    /// The first two values that `node` reads; `None` where one is absent.
    pub fn operands(&self, node: &NodeProto) -> Option<[ValueId; 2]> {
        Some([self.input(node, 0)?, self.input(node, 1)?])
    }

    /// The value that `node` makes at `slot`.
    pub fn output(&self, node: &NodeProto, slot: usize) -> Option<ValueId> {
        node.output.get(slot).filter(|name| !name.is_empty()).and_then(|name| self.find(name))
    }

    /// Proves the index against the graph: every link is there in both directions, and none is left over.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn check(&self, graph: &Graph) {
        let mut reads = 0;
        for (i, node) in graph.nodes().iter().enumerate() {
            for slot in 0..node.input.len() {
                if let Some(value) = self.input(node, slot) {
                    assert!(self.value(value).consumers.contains(&(NodeId(i), slot)), "{} slot {slot}", node.label());
                    reads += 1;
                }
            }
            for (slot, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                assert_eq!(self.find(name).map(|id| self.value(id).producer), Some(Producer::Node(NodeId(i), slot)));
            }
        }
        assert_eq!(self.values.iter().map(|value| value.consumers.len()).sum::<usize>(), reads);
        let outputs: BTreeSet<&str> = graph.outputs().iter().map(|output| output.name()).collect();
        for value in &self.values {
            assert_eq!(value.is_output, outputs.contains(value.name.as_str()), "{}", value.name);
        }
        let mut position = vec![usize::MAX; graph.nodes().len()];
        for (at, &NodeId(node)) in self.order.iter().enumerate() {
            position[node] = at;
        }
        for value in &self.values {
            if let Producer::Node(maker, _) = value.producer {
                let readers = value.consumers.iter().map(|(reader, _)| reader).chain(&value.captured_by);
                assert!(readers.into_iter().all(|reader| position[maker.0] < position[reader.0]), "{}", value.name);
            }
        }
    }

    fn define_all(&mut self, graph: &Graph, outer: &[Initializer]) -> Result<(), IndexError> {
        let declared: HashMap<&str, TensorType> = graph
            .value_info()
            .iter()
            .chain(graph.outputs())
            .filter_map(|info| Some((info.name(), TensorType::of(info)?)))
            .collect();
        for (position, input) in graph.inputs().iter().enumerate() {
            self.define(input.name(), Producer::Input(position), TensorType::of(input), || "a graph input".into())?;
        }
        for (position, initializer) in graph.initializers().iter().enumerate() {
            match self.find(initializer.name()) {
                Some(id) if matches!(self.value(id).producer, Producer::Input(_)) => {}
                _ => self.define(
                    initializer.name(),
                    Producer::Initializer(position),
                    Some(initializer.tensor_type()),
                    || "an initializer".into(),
                )?,
            }
        }
        for initializer in outer {
            if self.find(initializer.name()).is_none() {
                let tensor_type = Some(initializer.tensor_type());
                self.define(initializer.name(), Producer::Outer, tensor_type, || "the main graph".into())?;
            }
        }
        for (i, node) in graph.nodes().iter().enumerate() {
            for (slot, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let tensor_type = declared.get(name.as_str()).cloned();
                self.define(name, Producer::Node(NodeId(i), slot), tensor_type, || node.label())?;
            }
        }
        Ok(())
    }

    fn define(
        &mut self,
        name: &str,
        producer: Producer,
        tensor_type: Option<TensorType>,
        by: impl FnOnce() -> String,
    ) -> Result<(), IndexError> {
        let id = ValueId(self.values.len());
        if self.by_name.insert(name.to_owned(), id).is_some() {
            return Err(IndexError::DefinedTwice { name: name.to_owned(), by: by() });
        }
        self.values.push(Value {
            name: name.to_owned(),
            producer,
            consumers: Vec::new(),
            is_output: false,
            captured_by: Vec::new(),
            tensor_type,
        });
        Ok(())
    }

    fn use_all(&mut self, graph: &Graph) -> Result<(), IndexError> {
        for (i, node) in graph.nodes().iter().enumerate() {
            for (slot, name) in node.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let id = self.demand(name, || node.label())?;
                self.values[id.0].consumers.push((NodeId(i), slot));
            }
            for name in captured(node) {
                let id = self.demand(name, || format!("a subgraph of {}", node.label()))?;
                self.values[id.0].captured_by.push(NodeId(i));
            }
        }
        for output in graph.outputs() {
            let id = self.demand(output.name(), || "the list of graph outputs".into())?;
            self.values[id.0].is_output = true;
        }
        Ok(())
    }

    fn demand(&self, name: &str, by: impl FnOnce() -> String) -> Result<ValueId, IndexError> {
        self.find(name).ok_or_else(|| IndexError::Undefined { name: name.to_owned(), by: by() })
    }

    /// Kahn's algorithm; among the nodes that are ready, the first in the file goes first.
    fn sort(&self, graph: &Graph) -> Result<Vec<NodeId>, IndexError> {
        let mut waiting = vec![0_usize; graph.nodes().len()];
        for value in &self.values {
            if matches!(value.producer, Producer::Node(..)) {
                for reader in value.consumers.iter().map(|(reader, _)| reader).chain(&value.captured_by) {
                    waiting[reader.0] += 1;
                }
            }
        }
        let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|&node| waiting[node] == 0).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(node) = ready.pop_first() {
            order.push(NodeId(node));
            for name in graph.nodes()[node].output.iter().filter(|name| !name.is_empty()) {
                let value = &self.values[self.by_name[name].0];
                for reader in value.consumers.iter().map(|(reader, _)| reader).chain(&value.captured_by) {
                    waiting[reader.0] -= 1;
                    if waiting[reader.0] == 0 {
                        ready.insert(reader.0);
                    }
                }
            }
        }
        match waiting.iter().position(|&count| count > 0) {
            Some(node) => Err(IndexError::Cycle { node: graph.nodes()[node].label() }),
            None => Ok(order),
        }
    }
}

/// The names that the subgraphs of `node` read from the graph around them.
pub(super) fn captured(node: &NodeProto) -> BTreeSet<&str> {
    node.subgraphs().flat_map(free_names).collect()
}

/// The names that a subgraph reads from the graphs around it.
pub(crate) fn free_names(graph: &GraphProto) -> BTreeSet<&str> {
    let defined: BTreeSet<&str> = graph
        .input
        .iter()
        .map(|input| input.name())
        .chain(graph.initializer.iter().map(|tensor| tensor.name()))
        .chain(graph.sparse_initializer.iter().filter_map(|tensor| Some(tensor.values.as_ref()?.name())))
        .chain(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)))
        .collect();
    let read = graph.node.iter().flat_map(|node| node.input.iter().map(String::as_str).chain(captured(node)));
    read.chain(graph.output.iter().map(|output| output.name()))
        .filter(|name| !name.is_empty() && !defined.contains(name))
        .collect()
}
