//! Who acts: the first argument of every use-case.

use std::net::IpAddr;
use std::sync::Arc;

use crate::event::FunctionCaller;
use crate::function::FunctionId;

/// Whoever asks for something to be done, with what they proved it by and where they asked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Whose rights apply.
    pub principal: Principal,
    /// How the principal was recognised.
    pub via: ActorVia,
    /// The network address of the request, if it came over a network.
    pub address: Option<IpAddr>,
}

/// Whose rights apply. What each may do is decided by [`crate::authorize`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The owner of the server.
    Root,
    /// A function that calls other functions.
    Function(FunctionId),
    /// The platform itself, on behalf of a trigger.
    Platform,
}

/// How a principal was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorVia {
    /// By an access key, whose id this is.
    AccessKey(Arc<str>),
    /// By the sandbox that the request came out of.
    Sandbox(FunctionCaller),
    /// By a trigger of the function that is started.
    Trigger,
    /// Not at all: the process acts by itself, for instance at its start.
    Process,
}

impl Actor {
    /// The owner of an access key.
    pub fn access_key(key_id: Arc<str>, address: Option<IpAddr>) -> Self {
        Self { principal: Principal::Root, via: ActorVia::AccessKey(key_id), address }
    }

    /// A function, by an invocation of it.
    pub fn function(caller: FunctionCaller) -> Self {
        let principal = Principal::Function(caller.function.clone());
        Self { principal, via: ActorVia::Sandbox(caller), address: None }
    }

    /// A trigger; `address` is that of the HTTP request that it answers.
    pub fn trigger(address: Option<IpAddr>) -> Self {
        Self { principal: Principal::Platform, via: ActorVia::Trigger, address }
    }

    /// The process itself, with the rights of the server's owner.
    pub fn process() -> Self {
        Self { principal: Principal::Root, via: ActorVia::Process, address: None }
    }

    /// The invocation that acts, if the actor is a function.
    pub fn caller(&self) -> Option<&FunctionCaller> {
        match &self.via {
            ActorVia::Sandbox(caller) => Some(caller),
            ActorVia::AccessKey(_) | ActorVia::Trigger | ActorVia::Process => None,
        }
    }
}

impl std::fmt::Display for Principal {
    /// `root`, `platform`, `function namespace/name`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Function(function) => write!(f, "function {function}"),
            Self::Platform => f.write_str("platform"),
        }
    }
}
