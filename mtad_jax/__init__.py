"""MTAD-GAT for whole fleets: one program trains, scores and explains every machine at once.

The packages stand in the order of the flow, and import only what stands before them:
config    the settings
data      raw files -> a fleet in memory, cleaned, cut and scaled
model     one machine's network: convolution, two graph attentions, GRU, forecaster, VAE
train     one machine's step, mapped over the fleet; checkpoints
detect    scores, calibration, thresholds, events
explain   which metrics caused an event
evaluate  scores against labels, always beside their floors
alerts    the ledger of events and of what people said of them; report draws what came of it
"""
